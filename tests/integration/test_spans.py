"""Spans of OpenTelemetry: of sends and runs, with their parents, links and errors; none when nobody asks for them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mqservice import Message, Reject, Retry, Service
from mqservice.config import Config, QueueOverrides
from mqservice.errors import QueueFull
from mqservice.log import about_message
from tests.processes import ROOT
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


class Spans:
    """What has been exported so far."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """A tracer provider for one test: `set_tracer_provider` would be for ever."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    yield Spans(exporter)
    provider.shutdown()


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


async def test_spans_when_sent_over_http_and_on_then_they_are_one_trace(config: Config, spans: Spans) -> None:
    service = Service(config)
    line: dict[str, Any] = {}
    inner: list[tuple[int, int]] = []

    @service.handler("first")
    async def first(body: int, message: Message) -> None:
        await asyncio.sleep(0)
        with trace.get_tracer("shop").start_as_current_span("inner") as span:
            line.update(about_message(None, "info", {}))
            inner.append((span.get_span_context().trace_id, span.get_span_context().span_id))
            await service.send("second", body, id="b")

    @service.handler("second")
    def second(body: int) -> None:
        pass

    async with service, aiohttp.ClientSession() as client:
        headers = {"Content-Type": "application/json", "traceparent": f"00-{TRACE}-{CALLER}-01"}
        url = f"{service.url}/v1/queues/first/messages?id=a"
        async with client.post(url, data="1", headers=headers) as response:
            assert response.status == 202
        await until(lambda: spans.named("process second"))
    sent, ran = spans.one("send first"), spans.one("process first")
    assert parent(sent) == (int(TRACE, 16), int(CALLER, 16))
    assert (parent(ran), links(ran)) == (ids(sent), [ids(sent)])
    sent_on, ran_on = spans.one("send second"), spans.one("process second")
    assert parent(spans.one("inner")) == ids(ran)
    assert parent(sent_on) == ids(spans.one("inner")) == inner[0]
    assert (parent(ran_on), links(ran_on)) == (ids(sent_on), [ids(sent_on)])
    assert (line["trace_id"], int(line["span_id"], 16)) == (TRACE, inner[0][1])
    assert (line["queue"], line["id"]) == ("first", "a")
    assert (sent.kind, ran.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    common = {"messaging.system": "mqservice", "messaging.destination.name": "first", "messaging.message.id": "a"}
    for span, operation in ((sent, "send"), (ran, "process")):
        assert span.attributes is not None
        kind = {"messaging.operation.type": operation, "messaging.operation.name": operation}
        assert {**common, **kind}.items() <= dict(span.attributes).items()
        assert span.status.status_code == StatusCode.UNSET


async def test_spans_when_many_are_sent_at_once_then_they_share_one(config: Config, spans: Spans) -> None:
    service = Service(config)

    @service.handler("work")
    async def work(body: int) -> None:
        pass

    async with service:
        await service.send_many("work", [1, 2, 3], headers={"tenant": "a"})
        await until(lambda: len(spans.named("process work")) == 3)
    sent = spans.one("send work")
    assert sent.attributes is not None
    assert sent.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in sent.attributes
    assert {parent(run) for run in spans.named("process work")} == {ids(sent)}


async def test_spans_when_runs_fail_then_they_say_how(config: Config, spans: Spans) -> None:
    service = Service(config)
    runs = 0

    @service.handler("work", retry=0.001)
    async def work(body: str) -> None:
        nonlocal runs
        runs += 1
        if body == "again" and runs == 1:
            raise Retry(delay=0.001)
        if body == "reject":
            raise Reject("no such shop")
        if body == "raise":
            raise KeyError("shop")

    async with service:
        for body in ("again", "reject", "raise"):
            ended = {"again": 2, "reject": 3, "raise": 4}[body]
            await service.send("work", body, attempts=1 if body == "raise" else 2)
            await until(lambda: len(spans.named("process work")) == ended)  # noqa: B023 - waited for at once
    again, done, rejected, failed = spans.named("process work")
    outcomes = [span.attributes["mqservice.outcome"] for span in (again, done, rejected, failed) if span.attributes]
    assert outcomes == ["retryin", "done", "dead", "dead"]
    assert [span.status.status_code for span in (again, done)] == [StatusCode.UNSET] * 2
    for span, kind, text in ((rejected, "Reject", "no such shop"), (failed, "KeyError", "'shop'")):
        assert span.status.status_code == StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == kind
        (event,) = span.events
        assert event.attributes is not None
        assert event.attributes["exception.message"] == text
    assert "KeyError" in str(failed.events[0].attributes)
    assert "exception.stacktrace" in (failed.events[0].attributes or {})


async def test_spans_when_a_send_is_refused_then_its_span_is_an_error(config: Config, spans: Spans) -> None:
    config.queues["full"] = QueueOverrides(max_length=1)
    service = Service(config)
    async with service:
        await service.send("full", 1)
        with pytest.raises(QueueFull):
            await service.send("full", 2)
    sent, refused = spans.named("send full")
    assert sent.status.status_code == StatusCode.UNSET
    assert refused.status.status_code == StatusCode.ERROR
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "queue-full"


async def test_spans_when_at_most_once_then_the_message_is_as_it_was(
    config: Config, spans: Spans, redis_client: redis.asyncio.Redis
) -> None:
    config.queues["once"] = QueueOverrides(delivery="at-most-once")
    service = Service(config)
    got = []

    @service.handler("once")
    async def once(body: int) -> None:
        got.append(body)

    async with service:
        await service.send("once", 7)
        await until(lambda: spans.named("process once"))
    assert got == [7]
    assert parent(spans.one("process once")) is None
    assert parent(spans.one("send once")) is None


async def test_spans_when_consumers_are_idle_then_there_are_none(config: Config, spans: Spans) -> None:
    """Every claim that finds nothing, and every bell that is waited for in vain, would else be one."""
    service = Service(config)

    @service.handler("work")
    async def work(body: int) -> None:
        pass

    async with service, aiohttp.ClientSession() as client:
        await until(lambda: service._running().lag.worst_ms >= 0)
        async with client.get(f"{service.url}/v1/queues") as response:
            assert response.status == 200
    assert spans.all() == []


PROGRAM = """
import asyncio, sys
from mqservice import Service
{more}
service = Service()

@service.handler("work")
async def work(body: int) -> None:
    pass

async def main():
    async with service:
        await (await service.send("work", 1)).result(5)

asyncio.run(main())
print("mqservice.spans" in sys.modules)
"""


@pytest.mark.parametrize(
    "more",
    ["sys.modules['opentelemetry'] = None", "", "import opentelemetry.trace"],
    ids=["not installed", "not used", "not configured"],
)
def test_spans_when_no_provider_is_set_then_nothing_of_them_is_imported(url: str, more: str) -> None:
    environ = {"MQSERVICE_REDIS__URL": url, "MQSERVICE_REDIS__EMBEDDED": "never", "MQSERVICE_HTTP__PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(more=more)],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")
