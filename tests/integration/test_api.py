"""The HTTP API as its clients see it: every route, on a real server."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import pytest
import redis.asyncio
from aiohttp import ClientSession

from mqservice import Message, Reject, Service
from mqservice.config import Config, HttpConfig, QueueOverrides, ServiceConfig
from mqservice.errors import Unavailable
from mqservice.idempotency import Idempotency
from mqservice.web import batches
from mqservice.web.parameters import NoQuery
from mqservice.web.problems import PROBLEMS
from mqservice.web.route import Route
from mqservice.web.routes import ROUTES
from tests.waiting import until, until_async

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
SEND = "/v1/queues/echo/messages"
IDLE = "/v1/queues/idle/messages"
"""A queue without a handler."""


class Got(NamedTuple):
    """An answer, read."""

    status: int
    headers: Any
    body: Any
    """JSON where it is that, else bytes."""

    @property
    def problem(self) -> str:
        """The code of a problem, of which all answers of 4xx and 5xx have the shape."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.body["status"] == self.status
        assert self.body["title"] == PROBLEMS[self.body["type"].removeprefix("/problems/")].title
        return str(self.body["type"].removeprefix("/problems/"))


class Api:
    """A client of one running service."""

    def __init__(self, service: Service, session: ClientSession) -> None:
        self.service, self._session = service, session

    async def __call__(self, method: str, path: str, data: Any = None, **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(method, self.service.url + path, data=data, headers=named) as response:
            body = await response.read()
            kind = response.headers.get("Content-Type", "")
            return Got(response.status, response.headers, json.loads(body) if "json" in kind and body else body)

    async def send(self, path: str, body: Any, **headers: str) -> Got:
        """POST a JSON body."""
        return await self("POST", path, json.dumps(body), **JSON, **headers)

    async def count(self, queue: str, state: str) -> int:
        """How many messages a queue shows in a state."""
        return len((await self("GET", f"/v1/queues/{queue}/messages?state={state}&limit=200")).body["messages"])

    async def state(self, location: str) -> str:
        """The state of a message."""
        return str((await self("GET", location)).body["state"])


Handlers = Callable[[Service], None]


@asynccontextmanager
async def serving(config: Config, handlers: Handlers = lambda service: None) -> AsyncIterator[Api]:
    """Run a service with a few queues; it ends without waiting for those who sleep."""
    service = Service(msgspec.structs.replace(config, service=ServiceConfig(drain_s=0)))

    @service.handler("echo")
    async def echo(body: Any) -> Any:
        return body

    @service.handler("bytes")
    async def count(body: bytes) -> int:
        return len(body)

    @service.handler("sleep")
    async def sleep(seconds: float, message: Message) -> float:
        await message.progress(0.5, "asleep")
        await asyncio.sleep(seconds)
        return seconds

    @service.handler("reject")
    async def reject(body: Any) -> None:
        raise Reject("no such customer")

    handlers(service)
    async with service, ClientSession(auto_decompress=False) as session:
        yield Api(service, session)


@pytest.fixture
async def api(config: Config) -> AsyncIterator[Api]:
    async with serving(config) as api:
        yield api


def changed(config: Config, **queues: QueueOverrides) -> Config:
    return msgspec.structs.replace(config, queues=queues)


def http(config: Config, **keys: Any) -> Config:
    return msgspec.structs.replace(config, http=HttpConfig(port=0, **keys))


# Sending


async def test_send_when_waited_for_then_the_result_comes_with_the_answer(api: Api) -> None:
    got = await api.send(f"{SEND}?wait=5", {"a": 1})
    assert got.status == 200
    assert got.body["state"] == "done"
    assert got.body["result"] == got.body["body"] == {"a": 1}
    assert got.headers["Location"] == f"{SEND}/{got.body['id']}"
    sent, claimed, finished = (datetime.fromisoformat(got.body[at]) for at in ("sent_at", "claimed_at", "finished_at"))
    assert sent <= claimed <= finished <= datetime.now(UTC) + timedelta(seconds=1)
    assert finished - sent < timedelta(seconds=5)


async def test_send_when_not_waited_for_then_it_is_accepted_and_can_be_followed(api: Api) -> None:
    got = await api.send(IDLE, {"a": 1})
    assert (got.status, got.body["state"]) == (202, "ready")
    view = await api("GET", got.headers["Location"])
    assert (view.status, view.body["id"], view.body["body"]) == (200, got.body["id"], {"a": 1})


async def test_send_when_the_wait_is_too_short_then_it_is_accepted_with_the_time_to_ask_again(api: Api) -> None:
    got = await api.send("/v1/queues/sleep/messages?wait=100ms", 30)
    assert (got.status, got.body["state"]) == (202, "active")
    assert got.headers["Retry-After"] == "1"
    assert (await api("GET", f"{got.headers['Location']}?wait=0.05")).status == 202


@pytest.mark.parametrize("prefer", ["wait=5", "respond-async, wait=5", 'foo; bar="x", Wait=5'])
async def test_send_when_a_wait_is_preferred_then_it_is_waited_for(api: Api, prefer: str) -> None:
    got = await api.send(SEND, 1, Prefer=prefer)
    assert (got.status, got.body["result"]) == (200, 1)


async def test_send_when_the_preference_is_no_wait_then_it_is_ignored(api: Api) -> None:
    assert (await api.send(IDLE, 1, Prefer="wait=soon")).status == 202


async def test_send_when_the_message_dies_then_the_answer_says_why(api: Api) -> None:
    got = await api.send("/v1/queues/reject/messages?wait=5", 1)
    assert (got.status, got.body["state"], got.body["reason"]) == (200, "dead", "rejected")
    assert "no such customer" in got.body["error"]["text"]


@pytest.mark.parametrize(
    ("headers", "body", "shown", "kind"),
    [
        (JSON, b' {"a" : 1.0} ', {"a": 1.0}, ""),
        ({"Content-Type": "application/cloudevents+json"}, b"[1]", [1], ""),
        (FORM, b'{"a": 1}', {"a": 1}, ""),
        (FORM, b"hello", "hello", "text/plain"),
        (FORM, b"", "", "text/plain"),
        (FORM, b"\xff", {"base64": "/w=="}, "application/octet-stream"),
        (TEXT, b"hello", "hello", "text/plain; charset=utf-8"),
        (TEXT, b"", "", "text/plain; charset=utf-8"),
        ({"Content-Type": "image/png"}, b"\x89PNG", {"base64": "iVBORw=="}, "image/png"),
    ],
)
async def test_send_when_of_any_type_then_body_and_type_are_kept(
    api: Api, headers: dict[str, str], body: bytes, shown: Any, kind: str
) -> None:
    got = await api("POST", IDLE, body, **headers)
    assert got.status == 202
    view = (await api("GET", got.headers["Location"])).body
    assert (view["body"], view.get("content_type", "")) == (shown, kind)


async def test_send_when_bytes_then_the_handler_gets_them_all(api: Api) -> None:
    got = await api("POST", "/v1/queues/bytes/messages?wait=5", bytes(range(256)) * 100, Content_Type="image/png")
    assert (got.status, got.body["result"]) == (200, 25_600)


async def test_send_when_nobody_says_the_type_then_json_is_json_and_the_rest_bytes(api: Api) -> None:
    number, text = await raw(api, IDLE, b"7"), await raw(api, IDLE, b"hello")
    empty = await raw(api, IDLE, b"")
    assert number.startswith(b"HTTP/1.1 202")
    assert text.startswith(b"HTTP/1.1 202")
    assert empty.startswith(b"HTTP/1.1 400")
    messages = (await api("GET", IDLE)).body["messages"]
    assert [(m["body"], m.get("content_type")) for m in messages] == [(7, None), ("hello", "application/octet-stream")]


async def raw(api: Api, path: str, body: bytes, head: str = "") -> bytes:
    """POST without a header more than HTTP needs, and `head`."""
    reader, writer = await asyncio.open_connection("localhost", int(api.service.url.rpartition(":")[2]))
    length = "" if "Content-Length" in head or "Transfer-Encoding" in head else f"Content-Length: {len(body)}\r\n"
    writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{length}{head}\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": 1,}',
        b"1 2",
        b"NaN",
        b"[Infinity]",
        b'"\xff"',
        b'"\\ud800"',
        b"1e999",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b"[" * 2000 + b"]" * 2000,
        '{"a": 1}'.encode("utf-16"),
    ],
)
async def test_send_when_json_is_malformed_then_it_says_where_and_keeps_nothing(api: Api, body: bytes) -> None:
    got = await api("POST", IDLE, body, **JSON)
    assert (got.status, got.problem) == (400, "malformed-json")
    assert any(word in got.body["detail"] for word in ("byte", "truncated", "empty", "deeply", "range"))
    assert await api.count("idle", "ready") == 0


async def test_send_when_nested_as_deep_as_it_goes_then_it_is_shown_and_handled(api: Api) -> None:
    got = await api("POST", f"{SEND}?wait=5&id=deep", b"[" * 900 + b"]" * 900, **JSON)
    assert (got.status, got.body["state"]) == (200, "done")
    assert (await api("GET", f"{SEND}/deep")).status == 200


async def test_send_when_delayed_then_it_is_scheduled_for_then(api: Api) -> None:
    for query in ("delay=60", "delay=60000ms", "delay=60s", "delay=1m", "delay=6e1"):
        got = await api.send(f"{SEND}?{query}", 1)
        assert (got.status, got.body["state"]) == (202, "scheduled")
        view = (await api("GET", got.headers["Location"])).body
        due = datetime.fromisoformat(view["due_at"]) - datetime.fromisoformat(view["sent_at"])
        assert due == timedelta(seconds=60)


async def test_send_when_a_time_is_given_then_it_is_scheduled_for_it(api: Api) -> None:
    got = await api.send(f"{SEND}?at={(datetime.now(UTC) + timedelta(days=2)).strftime('%Y-%m-%dT%H:%M:%S.5Z')}", 1)
    assert (await api("GET", got.headers["Location"])).body["due_at"].endswith(".500Z")
    past = await api.send(f"{SEND}?at=2001-01-01T00:00:00%2B01:00&wait=5", 1)
    assert (past.status, past.body["state"]) == (200, "done")


async def test_send_when_it_may_expire_then_the_view_says_when(api: Api) -> None:
    got = await api.send(f"{IDLE}?ttl=2h", 1)
    view = (await api("GET", got.headers["Location"])).body
    life = datetime.fromisoformat(view["expires_at"]) - datetime.fromisoformat(view["sent_at"])
    assert life == timedelta(hours=2)


@pytest.mark.parametrize(
    "query",
    [
        "dealy=5",
        "delay=-1",
        "delay=",
        "delay=soon",
        "delay=nan",
        "delay=inf",
        "delay=1e9",
        "delay=31536001",
        "delay=5&delay=6",
        "delay=5x",
        "delay=5&at=2030-01-01T00:00:00Z",
        "at=2999-01-01T00:00:00Z",
        "at=2030-01-01T00:00:00",
        "at=5",
        "at=now",
        "ttl=-1",
        "attempts=0",
        "attempts=1001",
        "attempts=2.5",
        "attempts=null",
        "id=",
        "id=a%20b",
        "id=a%0A",
        "id=batch",
        f"id={'a' * 129}",
        "unique=a/b",
        "unique=a%0A",
        "wait=-1",
        "%FF=1",
    ],
)
async def test_send_when_a_parameter_is_unfit_then_nothing_is_kept(api: Api, query: str) -> None:
    got = await api.send(f"{IDLE}?{query}", 1)
    assert got.status == 400
    assert got.problem in ("invalid-parameter", "invalid-name")
    assert [await api.count("idle", state) for state in ("ready", "scheduled")] == [0, 0]


async def test_send_when_the_id_exists_then_it_is_the_same_message(api: Api) -> None:
    first = await api.send(f"{SEND}?id=order-42&wait=5", 1)
    again = await api.send(f"{SEND}?id=order-42", 2)
    waited = await api.send(f"{SEND}?id=order-42&wait=5", 3)
    assert (first.status, again.status, waited.status) == (200, 202, 200)
    assert again.body == {"id": "order-42", "state": "done"}
    assert waited.body["result"] == 1
    assert await api.count("echo", "done") == 1


async def test_send_when_its_unique_key_is_taken_then_it_is_refused_until_the_other_has_ended(api: Api) -> None:
    first = await api.send(f"{SEND}?unique=invoice-7&delay=1h", 1)
    second = await api.send(f"{SEND}?unique=invoice-7", 2)
    assert (second.status, second.problem) == (409, "not-unique")
    assert second.headers["Location"] == first.headers["Location"]
    await api("DELETE", first.headers["Location"])
    assert (await api.send(f"{SEND}?unique=invoice-7", 3)).status == 202


async def test_send_when_the_queue_is_full_then_429_says_when_to_try_again(config: Config) -> None:
    async with serving(changed(config, idle=QueueOverrides(max_length=2))) as api:
        assert [(await api.send(IDLE, n)).status for n in range(2)] == [202, 202]
        full = await api.send(f"{IDLE}?id=x", 3)
        assert (full.status, full.problem) == (429, "queue-full")
        assert 1 <= int(full.headers["Retry-After"]) <= 60
        assert (await api("GET", f"{IDLE}/x")).status == 404
        batch = await api.send(f"{IDLE}/batch", [{"body": 1}])
        assert (batch.status, batch.problem) == (429, "queue-full")


async def test_send_when_at_most_once_then_the_bare_body_is_pushed(
    config: Config, redis_client: redis.asyncio.Redis
) -> None:
    async with serving(changed(config, idle=QueueOverrides(delivery="at-most-once"))) as api:
        got = await api("POST", IDLE, b"7", **TEXT)
        assert (got.status, got.body) == (202, {"id": None, "state": "ready"})
        assert "Location" not in got.headers
        assert await redis_client.lrange("mq:idle", 0, -1) == [b"7"]
        for refused in (await api.send(f"{IDLE}?delay=5", 1), await api.send(f"{IDLE}/batch", [{"body": 1}])):
            assert (refused.status, refused.problem) == (400, "needs-record")


async def test_send_when_traced_then_the_trace_goes_along(api: Api) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    unfit = ("00-nonsense", trace.replace("00-", "ff-", 1), f"00-{'0' * 32}-00f067aa0ba902b7-01")
    for given, kept in ((trace, {"traceparent": trace}), *((each, None) for each in unfit)):
        got = await api.send(IDLE, 1, traceparent=given)
        assert (await api("GET", got.headers["Location"])).body.get("headers") == kept


async def test_send_when_redis_is_full_then_503_and_nothing_is_kept(
    api: Api, redis_client: redis.asyncio.Redis
) -> None:
    await redis_client.config_set("maxmemory", 1)
    try:
        got = await api.send(IDLE, 1)
    finally:
        await redis_client.config_set("maxmemory", 0)
    assert (got.status, got.problem) == (503, "out-of-memory")
    assert got.headers["Retry-After"] == "5"
    assert await api.count("idle", "ready") == 0


async def test_send_when_waiting_fails_after_it_was_kept_then_it_is_accepted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(*_: object) -> None:
        raise Unavailable("gone in this moment")

    monkeypatch.setattr("mqservice.results.Waiters.wait", wait)
    got = await api.send(f"{IDLE}?wait=5", 1)
    assert (got.status, got.body["state"]) == (202, "ready")


async def test_wait_when_the_service_stops_then_the_client_is_still_answered(config: Config) -> None:
    async with serving(config) as api:
        waiting = asyncio.create_task(api.send(f"{IDLE}?wait=60&id=x", 1))
        await until_async(lambda: exists(api, f"{IDLE}/x"))
        await until(lambda: waiters(api))
        await api.service.stop()
        got = await waiting
    assert (got.status, got.body) == (202, {"id": "x", "state": "ready"})


async def test_wait_when_the_client_goes_away_then_nobody_waits_any_more(api: Api) -> None:
    waiting = asyncio.create_task(api.send(f"{IDLE}?wait=60", 1))
    await until(lambda: waiters(api))
    waiting.cancel()
    await asyncio.wait([waiting])
    await until(lambda: not waiters(api))


async def exists(api: Api, path: str) -> bool:
    return (await api("GET", path)).status == 200


def waiters(api: Api) -> int:
    return len(api.service._running().backend.waiters._waiting)


# Bodies


async def test_body_when_declared_too_large_then_it_is_refused_before_it_is_sent(config: Config) -> None:
    async with serving(http(config, body_limit=100)) as api:
        head = "Content-Length: 101\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n"
        answer = await raw(api, IDLE, b"", head)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"Connection: close" in answer


async def test_body_when_it_is_expected_then_the_client_is_told_to_go_on(api: Api) -> None:
    answer = await raw(api, IDLE, b"", "Content-Length: 1\r\nExpect: 100-continue\r\n")
    assert answer.startswith(b"HTTP/1.1 100 Continue")
    assert (await raw(api, IDLE, b"1", "Expect: miracles\r\n")).startswith(b"HTTP/1.1 417")


async def test_body_when_it_grows_too_large_then_it_is_refused(config: Config) -> None:
    async with serving(http(config, body_limit=100)) as api:
        head = "Transfer-Encoding: chunked\r\nContent-Type: text/plain\r\n"
        assert (await raw(api, IDLE, b"65\r\n" + b"x" * 101 + b"\r\n", head)).startswith(b"HTTP/1.1 413")
        for path, body in ((IDLE, b"x" * 101), ("/v1/channels/c/messages", b"x" * 101)):
            got = await api("POST", path, body, **TEXT)
            assert (got.status, got.problem, got.body["limit"]) == (413, "body-too-large", 100)
        assert (await api("POST", IDLE, b"x" * 100, **TEXT)).status == 202


async def test_body_when_it_does_not_come_then_408(config: Config) -> None:
    async with serving(http(config, body_deadline_s=0.2)) as api:
        assert (await raw(api, IDLE, b"123", "Content-Length: 10\r\n")).startswith(b"HTTP/1.1 408")


async def test_body_when_compressed_then_415(api: Api) -> None:
    got = await api("POST", IDLE, b"\x1f\x8b", Content_Encoding="gzip", **JSON)
    assert (got.status, got.problem) == (415, "unsupported-encoding")


@pytest.mark.parametrize("kind", ["json", "text/pl ain", "text/plain; \x80", "a/" + "b" * 300])
async def test_body_when_its_type_is_none_then_415(api: Api, kind: str) -> None:
    answer = await raw(api, IDLE, b"1", f"Content-Type: {kind}\r\n")
    assert answer.startswith(b"HTTP/1.1 415")


# Batches


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b'[{"body": 1}, {"body": {"a" : 2}, "id": "b"}, {"body": 3, "delay": "5m", "attempts": 2, "ttl": 9}]'),
        (
            NDJSON,
            b'{"body": 1}\n{"body": {"a" : 2}, "id": "b"}\n{"body": 3, "delay": 300, "attempts": 2, "ttl": "9s"}\n',
        ),
        (NDJSON, b'{"body": 1}\r\n\r\n \n{"body": {"a" : 2}, "id": "b"}\n{"body": 3, "delay": 300}'),
        (
            {"Content-Type": "application/jsonl"},
            b'{"body": 1}\n{"body": {"a" : 2}, "id": "b"}\n{"body": 3, "delay": 300}',
        ),
        (FORM, b'{"body": 1}\n{"body": {"a" : 2}, "id": "b"}\n{"body": 3, "delay": 300}'),
        (FORM, b'\n [{"body": 1}, {"body": {"a" : 2}, "id": "b"}, {"body": 3, "delay": 300}]'),
    ],
)
async def test_batch_when_sent_then_all_of_it_is_there_in_order(api: Api, headers: dict[str, str], body: bytes) -> None:
    got = await api("POST", f"{IDLE}/batch", body, **headers)
    assert got.status == 202
    first, second, third = got.body["ids"]
    assert second == "b"
    ready = (await api("GET", IDLE)).body["messages"]
    assert [(m["id"], m["body"]) for m in ready] == [(first, 1), ("b", {"a": 2})]
    assert await api.state(f"{IDLE}/{third}") == "scheduled"


async def test_batch_when_it_comes_in_pieces_then_lines_are_put_together(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"bo', b'dy": "a\\n', b'b"}', b'\n{"body": 2}\n{"b', b'ody": 3}'):
            yield piece
            await asyncio.sleep(0.01)

    got = await api("POST", f"{IDLE}/batch", pieces(), **NDJSON)
    assert got.status == 202
    assert [m["body"] for m in (await api("GET", IDLE)).body["messages"]] == ["a\nb", 2, 3]


async def test_batch_when_as_large_as_it_may_be_then_it_is_taken(api: Api, redis_client: redis.asyncio.Redis) -> None:
    lines = b'{"body":{"to":"someone"}}\n' * batches.MOST
    got = await api("POST", f"{IDLE}/batch", lines, **NDJSON)
    assert (got.status, len(set(got.body["ids"]))) == (202, batches.MOST)
    assert await redis_client.llen("mq:idle") == batches.MOST


@pytest.mark.parametrize(
    ("body", "index", "line"),
    [
        (b'{"body": 1}\n{"body": }', 1, 2),
        (b'{"body": 1}\n\n\n{"body": 1', 1, 4),
        (b'{"body": 1}\n{"body": 2, "dealy": 5}\n', 1, 2),
        (b'{"id": "a"}\n', 0, 1),
        (b"5\n", 0, 1),
        (b'{"body": 1} {"body": 2}\n', 0, 1),
        (b'{"body":\n1}\n', 0, 1),
        (b'{"body": 1, "delay": -5}\n', 0, 1),
        (b'{"body": 1, "delay": "soon"}\n', 0, 1),
        (b'{"body": 1, "attempts": 0}\n', 0, 1),
        (b'{"body": 1, "id": "a b"}\n', 0, 1),
        (b'{"body": NaN}\n', 0, 1),
        (b'{"body": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", 0, 1),
    ],
)
async def test_batch_when_a_line_is_unfit_then_it_is_named_and_nothing_is_kept(
    api: Api, body: bytes, index: int, line: int
) -> None:
    got = await api("POST", f"{IDLE}/batch", b'{"body": "first"}\n' + body, **NDJSON)
    assert (got.status, got.problem) == (400, "malformed-batch")
    assert (got.body["index"], got.body["line"]) == (index + 1, line + 1)
    assert await api.count("idle", "ready") == 0


@pytest.mark.parametrize(
    ("body", "code", "index"),
    [
        (b"[", "malformed-json", None),
        (b"", "malformed-json", None),
        (b"{}", "malformed-batch", None),
        (b"[]", "malformed-batch", None),
        (b'[{"body": 1}, {"body": 2, "x": 1}]', "malformed-batch", 1),
        (b'[{"body": 1}, {"body": "\xff"}]', "malformed-batch", 1),
        (b'[{"body": 1}, {"body": 1e999}]', "malformed-batch", 1),
        (b'[{"body": 1}, {"body": 2, "id": "a\\n"}]', "invalid-name", None),
        (b'[{"body": 1}, {"body": 2, "id": "batch"}]', "invalid-name", None),
    ],
)
async def test_batch_when_an_array_is_unfit_then_nothing_is_kept(
    api: Api, body: bytes, code: str, index: int | None
) -> None:
    got = await api("POST", f"{IDLE}/batch", body, **JSON)
    assert (got.status, got.problem, got.body.get("index")) == (400, code, index)
    assert await api.count("idle", "ready") == 0


async def test_batch_when_too_large_then_413(api: Api) -> None:
    many = b'{"body":1}\n' * (batches.MOST + 1)
    large = b'{"body": "' + b"x" * (2 << 20) + b'"}'
    for headers, body in ((NDJSON, many), (NDJSON, large), (JSON, b"[" + large + b"]"), (TEXT, b"")):
        got = await api("POST", f"{IDLE}/batch", io.BytesIO(body), **headers)
        assert got.problem == ("unsupported-type" if headers is TEXT else "body-too-large")
    answer = await raw(api, f"{IDLE}/batch", b"", f"Content-Length: {batches.LIMIT_BYTES + 1}\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert await api.count("idle", "ready") == 0


async def test_batch_when_an_id_exists_then_it_is_the_same_message(api: Api) -> None:
    for _ in range(2):
        assert (await api.send(f"{IDLE}/batch", [{"body": 1, "id": "a"}])).body == {"ids": ["a"]}
    assert await api.count("idle", "ready") == 1


# Idempotency keys


@pytest.mark.parametrize("key", ['"8e03978e-40d5"', "8e03978e-40d5"])
async def test_key_when_used_again_then_the_first_answer_comes_back(api: Api, key: str) -> None:
    first = await api.send(IDLE, 1, Idempotency_Key=key)
    again = await api.send(IDLE, 1, Idempotency_Key=key)
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Content-Type"] == "application/json"
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert await api.count("idle", "ready") == 1


async def test_key_when_the_request_is_another_then_422(api: Api) -> None:
    await api.send(IDLE, 1, Idempotency_Key="k")
    for path, body in ((IDLE, 2), (f"{IDLE}?delay=5", 1), (SEND, 1), (f"{IDLE}/batch", [{"body": 1}])):
        got = await api.send(path, body, Idempotency_Key="k")
        assert (got.status, got.problem) == (422, "key-reused")


async def test_key_when_the_first_is_not_answered_then_409(api: Api) -> None:
    first = asyncio.create_task(api.send("/v1/queues/sleep/messages?wait=9&id=x", 0.5, Idempotency_Key="k"))
    await until_async(lambda: exists(api, "/v1/queues/sleep/messages/x"))
    second = await api.send("/v1/queues/sleep/messages?wait=9&id=x", 0.5, Idempotency_Key="k")
    assert (second.status, second.problem) == (409, "request-running")
    assert (await first).status == 200
    third = await api.send("/v1/queues/sleep/messages?wait=9&id=x", 0.5, Idempotency_Key="k")
    assert third.body == (await first).body


async def test_key_when_the_answer_could_not_be_kept_then_the_message_is_still_sent_once(
    api: Api, redis_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable("gone in this moment")

    with monkeypatch.context() as broken:
        broken.setattr(Idempotency, "finish", fail)
        first = await api.send(IDLE, 1, Idempotency_Key="k")
    await redis_client.delete("mq:idempotency:k")  # as if its time as running were over
    again = await api.send(IDLE, 1, Idempotency_Key="k")
    assert first.status == 202
    assert again.body == first.body
    assert await api.count("idle", "ready") == 1


async def test_key_when_nothing_was_kept_then_it_may_be_tried_again(config: Config) -> None:
    async with serving(changed(config, idle=QueueOverrides(max_length=1))) as api:
        other = await api.send(IDLE, 0)
        assert (await api.send(IDLE, 1, Idempotency_Key="k")).status == 429
        await api("DELETE", other.headers["Location"])
        got = await api.send(IDLE, 1, Idempotency_Key="k")
        assert (got.status, got.headers.get("Idempotency-Replayed")) == (202, None)


async def test_key_when_the_client_leaves_then_the_same_request_is_served_again(api: Api) -> None:
    first = asyncio.create_task(api.send(f"{IDLE}?wait=60", 1, Idempotency_Key="k"))
    await until(lambda: waiters(api))
    first.cancel()
    await asyncio.wait([first])
    await until(lambda: not waiters(api))
    again = asyncio.create_task(api.send(f"{IDLE}?wait=60", 1, Idempotency_Key="k"))
    await until(lambda: waiters(api))
    assert await api.count("idle", "ready") == 1
    again.cancel()
    await asyncio.wait([again])


async def test_key_when_for_a_batch_or_a_channel_then_it_holds_too(api: Api) -> None:
    for path, body in ((f"{IDLE}/batch", [{"body": 1}, {"body": 2}]), ("/v1/channels/c/messages", 1)):
        first = await api.send(path, body, Idempotency_Key=path.replace("/", "-"))
        again = await api.send(path, body, Idempotency_Key=path.replace("/", "-"))
        assert again.body == first.body
        assert again.headers["Idempotency-Replayed"] == "true"
    assert await api.count("idle", "ready") == 2


@pytest.mark.parametrize("key", ["a b", "é", "x" * 256])
async def test_key_when_it_is_none_then_400(api: Api, key: str) -> None:
    got = await api.send(IDLE, 1, Idempotency_Key=key)
    assert (got.status, got.problem) == (400, "invalid-parameter")


# Looking, cancelling, replaying, purging


async def test_look_when_there_are_more_then_the_cursor_leads_on(api: Api) -> None:
    await api.send(f"{IDLE}/batch", [{"body": n} for n in range(5)])
    seen, cursor = [], ""
    while True:
        page = (await api("GET", f"{IDLE}?limit=2{cursor}")).body
        seen += [message["body"] for message in page["messages"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("query", ["state=lost", "limit=0", "limit=201", "limit=x", "cursor=x", "wait=5"])
async def test_look_when_asked_for_nonsense_then_400(api: Api, query: str) -> None:
    got = await api("GET", f"{IDLE}?{query}")
    assert (got.status, got.problem) == (400, "bad-cursor" if "cursor" in query else "invalid-parameter")


async def test_view_when_waited_for_then_it_comes_when_the_message_has_ended(api: Api) -> None:
    sent = await api.send("/v1/queues/sleep/messages", 0.2)
    got = await api("GET", f"{sent.headers['Location']}?wait=5")
    assert (got.status, got.body["state"], got.body["result"]) == (200, "done", 0.2)


async def test_view_when_active_then_it_shows_the_progress(api: Api) -> None:
    sent = await api.send("/v1/queues/sleep/messages", 30)

    async def progress() -> Any:
        return (await api("GET", sent.headers["Location"])).body.get("progress")

    await until_async(progress)
    assert {**await progress(), "at_ms": 0} == {"fraction": 0.5, "text": "asleep", "at_ms": 0}


@pytest.mark.parametrize("ask", ["GET", "GET wait", "DELETE", "POST"])
async def test_message_when_unknown_then_404(api: Api, ask: str) -> None:
    path = f"{SEND}/nobody" + ("/replay" if ask == "POST" else "?wait=5" if "wait" in ask else "")
    got = await api(ask.split(maxsplit=1)[0], path)
    assert (got.status, got.problem) == (404, "no-such-message")


async def test_cancel_when_not_started_then_at_once_and_again_the_same(api: Api) -> None:
    for query in ("", "?delay=1h"):
        sent = await api.send(f"{IDLE}{query}", 1)
        for _ in range(2):
            got = await api("DELETE", sent.headers["Location"])
            assert (got.status, got.body) == (200, {"id": sent.body["id"], "state": "cancelled"})
        assert await api.state(sent.headers["Location"]) == "cancelled"


async def test_cancel_when_active_then_its_coroutine_is_cancelled(api: Api) -> None:
    sent = await api.send("/v1/queues/sleep/messages", 60)
    location = sent.headers["Location"]
    await until_async(lambda: is_state(api, location, "active"))
    got = await api("DELETE", location)
    assert (got.status, got.body["state"]) == (200, "cancelling")
    assert (await api("GET", f"{location}?wait=5")).body["state"] == "cancelled"


async def is_state(api: Api, location: str, state: str) -> bool:
    return await api.state(location) == state


async def test_cancel_when_ended_then_409_says_how(api: Api) -> None:
    for queue, state in (("echo", "done"), ("reject", "dead")):
        sent = await api.send(f"/v1/queues/{queue}/messages?wait=5", 1)
        got = await api("DELETE", sent.headers["Location"])
        assert (got.status, got.problem, got.body["state"]) == (409, "already-ended", state)


async def test_replay_when_dead_then_it_is_ready_and_keeps_its_id(api: Api) -> None:
    sent = await api.send("/v1/queues/reject/messages?wait=5", 1)
    await api("POST", "/v1/queues/reject/pause")
    got = await api("POST", f"{sent.headers['Location']}/replay")
    assert (got.status, got.body) == (202, {"id": sent.body["id"], "state": "ready"})
    assert got.headers["Location"] == sent.headers["Location"]


async def test_replay_when_not_dead_then_409(api: Api) -> None:
    sent = await api.send(f"{SEND}?wait=5", 1)
    got = await api("POST", f"{sent.headers['Location']}/replay")
    assert (got.status, got.problem, got.body["state"]) == (409, "not-dead", "done")


async def test_replay_when_of_all_then_the_filters_choose(api: Api) -> None:
    for _ in range(3):
        await api.send("/v1/queues/reject/messages?wait=5", 1)
    await api("POST", "/v1/queues/reject/pause")
    for query, replayed in (
        ("reason=crashed", 0),
        ("since=2999-01-01T00:00:00Z", 0),
        ("until=1970-01-01T00:00:00Z", 0),
        ("reason=rejected&since=2001-01-01T00:00:00Z&limit=2", 2),
        ("rate=0.5", 1),
    ):
        got = await api("POST", f"/v1/queues/reject/replay?{query}")
        assert (got.status, got.body) == (202, {"replayed": replayed}), query


async def test_purge_when_of_one_state_then_the_others_stay(api: Api) -> None:
    await api.send(f"{IDLE}/batch", [{"body": 1}, {"body": 2}, {"body": 3, "delay": 60}])
    got = await api("DELETE", f"{IDLE}?state=ready")
    assert (got.status, got.body) == (200, {"deleted": 2})
    assert await api.count("idle", "scheduled") == 1


@pytest.mark.parametrize("query", ["", "?state=active", "?state="])
async def test_purge_when_no_state_is_named_then_400(api: Api, query: str) -> None:
    got = await api("DELETE", f"{IDLE}{query}")
    assert (got.status, got.problem) == (400, "invalid-parameter")


async def test_pause_when_resumed_then_what_was_sent_meanwhile_runs(api: Api) -> None:
    assert (await api("POST", "/v1/queues/echo/pause")).body == {"name": "echo", "paused": True}
    sent = await api.send(f"{SEND}?wait=0.2", 1)
    assert (sent.status, sent.body["state"]) == (202, "ready")
    assert (await api("GET", "/v1/queues/echo")).body["paused"]
    assert (await api("POST", "/v1/queues/echo/resume")).body == {"name": "echo", "paused": False}
    assert (await api("GET", f"{sent.headers['Location']}?wait=5")).status == 200


async def test_queue_when_looked_at_then_it_counts(api: Api) -> None:
    await api.send(IDLE, 1)
    got = await api("GET", "/v1/queues/idle")
    assert got.status == 200
    assert got.body["counts"] == {"ready": 1, "active": 0, "scheduled": 0, "dead": 0, "done": 0, "cancelled": 0}
    names = [queue["name"] for queue in (await api("GET", "/v1/queues")).body["queues"]]
    assert names == sorted(["bytes", "echo", "idle", "reject", "sleep"])


async def test_queue_when_deleted_then_nobody_knows_it_any_more(api: Api) -> None:
    await api.send(IDLE, 1)
    got = await api("DELETE", "/v1/queues/idle")
    assert (got.status, got.body) == (200, {"deleted": 1})
    assert (await api("DELETE", "/v1/queues/idle")).problem == "no-such-queue"
    assert "idle" not in [queue["name"] for queue in (await api("GET", "/v1/queues")).body["queues"]]


async def test_queue_when_deleted_while_it_is_consumed_then_409(api: Api) -> None:
    await api.send(f"{SEND}?wait=5", 1)
    got = await api("DELETE", "/v1/queues/echo")
    assert (got.status, got.problem) == (409, "queue-in-use")
    assert (await api("GET", "/v1/queues/echo")).body["counts"]["done"] == 1


async def test_queue_when_a_stranger_holds_its_key_then_409_and_the_others_are_listed(
    api: Api, redis_client: redis.asyncio.Redis
) -> None:
    await api.send(IDLE, 1)
    await redis_client.delete("mq:idle")
    await redis_client.set("mq:idle", "mine")
    for method, path in (("GET", "/v1/queues/idle"), ("GET", IDLE), ("DELETE", "/v1/queues/idle")):
        got = await api(method, path)
        assert (got.status, got.problem) == (409, "wrong-type")
    listed = {queue["name"]: queue for queue in (await api("GET", "/v1/queues")).body["queues"]}
    assert "WRONGTYPE" in listed["idle"]["fault"]
    assert "fault" not in listed["echo"]


async def test_queue_when_nobody_knows_it_then_404(api: Api) -> None:
    got = await api("GET", "/v1/queues/nobody")
    assert (got.status, got.problem) == (404, "no-such-queue")


async def test_publish_when_somebody_listens_then_they_get_it(config: Config) -> None:
    heard: list[Any] = []

    def handlers(service: Service) -> None:
        @service.subscriber("prices.*")
        async def on_price(price: Any, message: Message) -> None:
            heard.append((message.queue, price))

    async with serving(config, handlers) as api:
        got = await api.send("/v1/channels/prices.eur/messages", {"p": 1})
        assert (got.status, got.body["receivers"]) == (202, 1)
        await until(lambda: heard)
        assert heard == [("prices.eur", {"p": 1})]
        assert (await api.send("/v1/channels/void/messages", 1)).body["receivers"] == 0
        assert (await api("POST", "/v1/channels/void/messages", b"{", **JSON)).problem == "malformed-json"


# Schedules


async def test_schedule_when_put_then_it_is_shown_listed_and_deleted(api: Api) -> None:
    path, spec = "/v1/schedules/nightly", {"queue": "idle", "cron": "0 3 * * *", "tz": "Europe/Berlin", "body": [1]}
    new = await api("PUT", path, json.dumps(spec), **JSON)
    assert (new.status, new.headers["Location"]) == (201, path)
    assert {key: new.body[key] for key in spec} == spec
    assert (new.body["name"], new.body["source"], len(new.body["next"])) == ("nightly", "api", 5)
    assert (await api("PUT", path, json.dumps(spec | {"paused": True}), **JSON)).status == 200
    shown = await api("GET", path)
    assert (shown.status, shown.body["paused"], shown.body["next"]) == (200, True, [])
    assert (await api("GET", "/v1/schedules")).body == {"schedules": [shown.body]}
    assert [(await api("DELETE", path)).status for _ in range(2)] == [204, 404]
    assert (await api("GET", path)).problem == "no-such-schedule"


async def test_schedule_when_due_then_its_message_is_sent(api: Api) -> None:
    await api("PUT", "/v1/schedules/often", b'{"queue": "idle", "every": "1s", "body": {"a": 1}}', **FORM)
    await until_async(lambda: api.count("idle", "ready"))
    message = (await api("GET", IDLE)).body["messages"][0]
    assert message["body"] == {"a": 1}
    assert message["id"].startswith("schedule:often:")


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (b"{", "malformed-json"),
        (b"[]", "invalid-schedule"),
        (b'{"queue": "idle"}', "invalid-schedule"),
        (b'{"queue": "idle", "every": 1, "cron": "* * * * *"}', "invalid-schedule"),
        (b'{"queue": "idle", "every": "soon"}', "invalid-schedule"),
        (b'{"queue": "idle", "every": 0.5}', "invalid-schedule"),
        (b'{"queue": "idle", "cron": "61 * * * *"}', "invalid-schedule"),
        (b'{"queue": "idle", "cron": "* * * * *", "tz": "../etc/passwd"}', "invalid-schedule"),
        (b'{"queue": "a b", "every": 5}', "invalid-schedule"),
        (b'{"queue": "idle", "every": 5, "evry": 5}', "invalid-schedule"),
    ],
)
async def test_schedule_when_it_cannot_be_then_400(api: Api, spec: bytes, code: str) -> None:
    got = await api("PUT", "/v1/schedules/x", spec, **JSON)
    assert (got.status, got.problem) == (400, code)
    assert (await api("PUT", "/v1/schedules/x", b"* * * * *", **TEXT)).problem == "unsupported-type"
    assert (await api("GET", "/v1/schedules")).body == {"schedules": []}


# What holds everywhere


async def test_answer_when_of_any_kind_then_it_has_a_request_id_and_is_safe_in_browsers(api: Api) -> None:
    for path in ("/", "/livez", "/v1/queues", "/docs", "/nowhere", "/v1/queues?x=1"):
        got = await api("GET", path)
        assert re.fullmatch("[0-9a-f]{12}-[0-9]+", got.headers["X-Request-Id"])
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in got.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in got.headers
    assert (await api("GET", "/v1/queues")).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("given", "kept"), [("abc.DEF_1-2", True), ("a" * 64, True), ("a" * 65, False), ("a b", False)]
)
async def test_request_id_when_given_then_kept_if_it_is_sane(api: Api, given: str, kept: bool) -> None:
    assert ((await api("GET", "/livez", X_Request_Id=given)).headers["X-Request-Id"] == given) == kept


async def test_path_when_unknown_then_404(api: Api) -> None:
    for path in ("/nowhere", "/v1", "/v1/queues/", "/v1/queues//messages", "/v1/queues/a/b/c/d", "/problems/nonsense"):
        got = await api("GET", path)
        assert (got.status, got.problem) == (404, "not-found")


async def test_method_when_the_path_has_others_then_405_names_them(api: Api) -> None:
    for method, path, allowed in (
        ("PUT", IDLE, {"GET", "POST", "DELETE"}),
        ("GET", f"{IDLE}/batch", {"POST"}),
        ("HEAD", "/v1/queues", {"GET"}),
        ("OPTIONS", "/v1/queues/echo", {"GET", "DELETE"}),
        ("POST", "/prodcons", {"GET", "HEAD"}),
    ):
        got = await api(method, path)
        assert got.status == 405
        assert set(got.headers["Allow"].replace(" ", "").split(",")) == allowed


@pytest.mark.parametrize("name", ["a%20b", "a%00b", "a%0D%0Ab", "%2e%2e%2f", "a%2Fb", "%FF", "é", "a" * 129, "%7B%7D"])
async def test_name_when_unfit_then_400_on_every_route(api: Api, name: str) -> None:
    for route in ROUTES:
        if route.query is None or not route.names:
            continue
        path = route.plain_path.format(**dict.fromkeys(route.names, name))
        answer = await request(api, route.method, path)
        assert answer.split(maxsplit=2)[1] == (b"404" if name == "%7B%7D" else b"400"), (route.operation, answer)
        assert b"Content-Type: application/problem+json" in answer
        assert b"X-Request-Id: " in answer


async def request(api: Api, method: str, path: str) -> bytes:
    """Send a path as it stands; aiohttp's client would clean it."""
    reader, writer = await asyncio.open_connection("localhost", int(api.service.url.rpartition(":")[2]))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return answer


async def test_query_when_it_has_an_unknown_parameter_then_400_on_every_route(api: Api) -> None:
    for route in ROUTES:
        if route.path.startswith("/v1/"):
            got = await api(route.method, f"{example(route)}?nonsense=1")
            assert (got.status, got.problem) == (400, "invalid-parameter"), route.operation


def example(route: Route) -> str:
    return route.plain_path.format(**dict.fromkeys(route.names, "x"))


async def test_route_when_it_takes_no_parameter_then_its_handler_gets_none(api: Api) -> None:
    assert all(route.query is not None for route in ROUTES if route.path.startswith("/v1/"))
    assert any(route.query is NoQuery for route in ROUTES)


async def test_fault_when_nobody_foresaw_it_then_500_without_a_traceback(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("mqservice.views.Views.queue", fail)
    got = await api("GET", "/v1/queues/echo")
    assert (got.status, got.problem) == (500, "internal")
    assert "secret" not in str(got.body)
    assert got.headers["X-Request-Id"] in got.body["detail"]


# What people read


async def test_problem_when_looked_up_then_its_page_explains_it(api: Api) -> None:
    listed = (await api("GET", "/problems")).body.decode()
    for code, kind in PROBLEMS.items():
        got = await api("GET", f"/problems/{code}")
        assert got.status == 200
        assert kind.title in got.body.decode().replace("&#x27;", "'")
        assert f'href="/problems/{code}"' in listed


async def test_docs_when_read_then_they_show_every_route_and_need_nobody_else(api: Api) -> None:
    got = await api("GET", "/docs")
    page = got.body.decode()
    for route in ROUTES:
        assert f'id="{route.operation}"' in page
    assert "script" not in page
    assert "http://localhost" in page  # in the curl lines
    assert "//" not in page.replace("http://localhost", "")
    assert "script-src" not in got.headers["Content-Security-Policy"]
    assert (await api("GET", "/static/docs.css")).status == 200


async def test_curl_line_when_typed_then_it_works(api: Api) -> None:
    page = (await api("GET", "/docs")).body.decode()
    assert "curl &#x27;http://localhost:5000/v1/queues/echo/messages?wait=5&#x27; --json" in page
