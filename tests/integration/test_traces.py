"""A trace from the HTTP request through the message to the handler's lines, and to what the handler sends."""

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from mqservice import Message, Service
from mqservice.config import Config
from mqservice.log import about_message
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE}-00f067aa0ba902b7-01"
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}

log = structlog.get_logger()


class Seen:
    """A service whose handlers note what a log line of theirs would say."""

    def __init__(self, config: Config) -> None:
        self.service = Service(config)
        self.lines: dict[str, dict[str, Any]] = {}
        self.headers: dict[str, dict[str, str]] = {}

        def note(message: Message) -> None:
            self.headers[message.queue] = message.headers
            self.lines[message.queue] = dict(about_message(None, "info", {}))

        @self.service.handler("first")
        async def first(body: int, message: Message) -> None:
            note(message)
            await asyncio.sleep(0)
            await self.service.send("plain", body)
            await self.service.send_many("many", [body])
            await self.service.send("other", body, headers={"tenant": "a"})
            await self.service.send("own", body, headers={"traceparent": "x"})
            self.lines["first, later"] = dict(about_message(None, "info", {}))

        @self.service.handler("plain")
        def plain(body: int, message: Message) -> None:
            note(message)

        for queue in ("many", "other", "own"):

            @self.service.handler(queue)
            async def further(body: int, message: Message) -> None:
                note(message)


@pytest.mark.parametrize("batch", ["", "array", "lines"])
async def test_trace_when_it_comes_over_http_then_it_is_in_the_lines_and_in_what_is_sent_on(
    config: Config, batch: str
) -> None:
    seen = Seen(config)
    path, headers, body = {
        "": ("messages", JSON, "7"),
        "array": ("messages/batch", JSON, '[{"body": 7}]'),
        "lines": ("messages/batch", NDJSON, '{"body": 7, "attempts": 3}\n'),
    }[batch]
    async with seen.service, aiohttp.ClientSession() as client:
        url = f"{seen.service.url}/v1/queues/first/{path}"
        async with client.post(url, data=body, headers={**headers, "traceparent": GIVEN}) as response:
            answer = json.loads(await response.read())
        await until(lambda: len(seen.lines) == 6)
    first = seen.lines["first"]
    assert seen.headers["first"] == {"traceparent": GIVEN}
    message_id = answer["ids"][0] if batch else answer["id"]
    assert (first["queue"], first["id"], first["attempt"]) == ("first", message_id, 1)
    assert first["trace_id"] == TRACE
    assert first["span_id"] not in GIVEN
    assert seen.lines["first, later"] == first
    child = f"00-{TRACE}-{first['span_id']}-01"
    assert seen.headers["plain"] == seen.headers["many"] == {"traceparent": child}
    assert seen.headers["other"] == {"traceparent": child, "tenant": "a"}
    assert seen.headers["own"] == {"traceparent": "x"}
    spans = {seen.lines[queue]["span_id"] for queue in ("first", "plain", "many", "other")}
    assert len(spans) == 4
    assert {seen.lines[queue]["trace_id"] for queue in ("plain", "many", "other")} == {TRACE}
    assert "trace_id" not in seen.lines["own"]


async def test_trace_when_there_is_none_then_lines_name_the_message_alone(config: Config) -> None:
    seen = Seen(config)
    async with seen.service:
        sent = await seen.service.send("first", 7)
        await until(lambda: len(seen.lines) == 6)
    assert seen.lines["first"] == {"queue": "first", "id": sent.id, "attempt": 1}
    assert seen.headers["first"] == seen.headers["plain"] == {}
    assert about_message(None, "info", {}) == {}


async def test_line_when_a_send_of_a_handler_finds_redis_away_then_it_is_about_no_message(config: Config) -> None:
    """What works for all senders at once must not be said of the one that came first."""
    service = Service(config)
    lines: list[EventDict] = []

    @service.handler("first")
    async def first(body: int) -> None:
        broker = service._running().backend.broker("second")

        async def flush(messages: Any) -> list[str]:
            lines.append(about_message(None, "info", {}))
            return ["ready"]

        broker._sends._flush = flush
        await service.send("second", body)

    async with service:
        await service.send("first", 1)
        await until(lambda: lines)
    assert lines == [{}]


async def test_logging_when_a_plain_handler_uses_the_standard_library_then_its_context_is_there(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(config)
    found: list[EventDict] = []

    class About(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.name == "shop":
                found.append(about_message(None, "info", {"event": record.getMessage()}))
            return True

    caplog.handler.addFilter(about := About())

    @service.handler("work")
    def work(body: int) -> None:
        logging.getLogger("shop").warning("working")

    try:
        async with service:
            sent = await service.send("work", 1)
            await sent.result(5)
    finally:
        caplog.handler.removeFilter(about)
    assert found == [{"event": "working", "queue": "work", "id": sent.id, "attempt": 1}]


async def test_lines_when_captured_as_in_tests_then_they_are_all_there(config: Config) -> None:
    service = Service(config)

    @service.handler("work")
    async def work(body: int) -> None:
        log.info("working", body=body)

    with capture_logs() as lines:
        async with service:
            await (await service.send("work", 1)).result(5)
    assert {"event": "working", "body": 1, "log_level": "info"} in lines
