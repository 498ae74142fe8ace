"""What hostile and broken clients send: refused with a stable answer, while others are served and nothing is kept.

Every attack runs against a real service in this process, whose loop is probed: it is never held for 50 ms of CPU.
"""

import asyncio
import contextlib
import gc
import io
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mqservice import Service
from mqservice.config import Config, HttpConfig, ServiceConfig
from mqservice.web import body, protocol, server
from mqservice.web.admission import Admission
from mqservice.web.problems import PROBLEMS
from tests.probes import LagProbe, lag, open_files
from tests.waiting import until, until_async

HELD_S = 0.05
"""How long the loop may be held in one go."""

SEND = "/v1/queues/idle/messages"
ECHO = "/v1/queues/echo/messages"
BATCH = f"{SEND}/batch"


class Line:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        content = await self.reader.readexactly(int(length[1])) if length else b""
        return int(head.split()[1]), content

    async def ended(self) -> bytes:
        """Everything until the server closes."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Reply(msgspec.Struct):
    """What matters of an answer; the rest, which may be a megabyte, is not taken apart: this is the probed loop."""

    type: str = ""
    state: str = ""
    result: msgspec.Raw = msgspec.Raw(b"")
    ids: list[str] = []

    @property
    def code(self) -> str:
        return self.type.removeprefix("/problems/")


class House:
    """A running service, a fair client of it, and as many lines as an attacker likes."""

    def __init__(self, url: str, session: aiohttp.ClientSession, admission: Admission) -> None:
        self.url, self.session, self.admission = url, session, admission
        self.port = int(url.rpartition(":")[2])

    async def line(self) -> Line:
        return Line(*await asyncio.open_connection("127.0.0.1", self.port))

    async def lines(self, count: int) -> list[Line]:
        """Open many, a hundred at once."""
        found: list[Line] = []
        while len(found) < count:
            found += await asyncio.gather(*(self.line() for _ in range(min(100, count - len(found)))))
        return found

    async def ask(self, raw: bytes, patience_s: float = 5.0) -> tuple[int, str]:
        """Send bytes on a line of their own; status and problem code of the answer, 0 for none."""
        line = await self.line()
        line.write(raw)
        try:
            status, content = await asyncio.wait_for(line.answer(), patience_s)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return 0, ""
        finally:
            await line.close()
        with contextlib.suppress(msgspec.DecodeError):
            return status, msgspec.json.decode(content, type=Reply).code
        return status, ""

    async def post(self, path: str, data: bytes, kind: str = "application/json") -> tuple[int, "Reply"]:
        sent = io.BytesIO(data)
        async with self.session.post(self.url + path, data=sent, headers={"Content-Type": kind}) as answer:
            return answer.status, msgspec.json.decode(await answer.read(), type=Reply)

    async def serves(self) -> float:
        """A fair client is served, result and all; return the seconds that it took."""
        began_at = time.perf_counter()
        status, answer = await self.post(f"{ECHO}?wait=5", b"1")
        assert (status, bytes(answer.result)) == (200, b"1")
        return time.perf_counter() - began_at


@asynccontextmanager
async def serving(config: Config, **http: Any) -> AsyncIterator[House]:
    """Serve `echo`. Fails when anything was logged as an error, or descriptors were left behind."""
    keys = {"port": 0, **http}
    config = msgspec.structs.replace(config, http=HttpConfig(**keys), service=ServiceConfig(drain_s=0))
    service = Service(config)

    @service.handler("echo")
    async def echo(body: Any) -> Any:
        return body

    with capture_logs() as logs:
        # A line each: one that is kept could be closed, after keepalive_s, just as it is used again.
        fair = aiohttp.TCPConnector(force_close=True)
        async with service, aiohttp.ClientSession(connector=fair) as session:
            house = House(service.url, session, service._running().server._admission)  # type: ignore[union-attr]
            await house.serves()
            before = open_files()
            yield house
            await house.serves()
            await until(lambda: len(house.admission) == 0)
            await until(lambda: open_files() <= before + config.redis.pool)
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical", "exception")] == []


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing reaches the logs of asyncio and aiohttp: no traceback, no exception that nobody fetched."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
async def house(config: Config) -> AsyncIterator[House]:
    async with serving(config) as house:
        yield house


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def check(probe: LagProbe) -> None:
    print(f"the loop was held {probe.worst_s * 1000:.1f} ms")
    assert probe.worst_s < HELD_S, f"the loop was held {probe.worst_s * 1000:.0f} ms"


async def hold(attack: Callable[[], Awaitable[None]]) -> None:
    """Check an attack that by itself takes much CPU; up to three times, against what the machine does just then."""
    worst = []
    while len(worst) < 3 and (not worst or worst[-1] >= 1):
        async with lag() as probe:
            await attack()
        worst.append(probe.worst_s / (HELD_S * max(1.0, yardstick_s() / YARDSTICK_S)))
    print(f"the loop was held {probe.worst_s * 1000:.1f} ms, {min(worst):.2f} of what is allowed")
    assert min(worst) < 1


YARDSTICK_S = 0.025
"""What `yardstick_s` takes where HELD_S holds as it stands: these machines run at half that speed now and then."""


def yardstick_s() -> float:
    """Return the seconds that decoding a million bytes of small lists takes at this moment, the collector left out."""
    gc.disable()
    began_at = time.perf_counter()
    msgspec.json.decode(NASTY_JSON["small lists"])
    took_s = time.perf_counter() - began_at
    gc.enable()
    return took_s


# Too much


LIMIT = 1 << 20


async def test_body_when_at_the_limit_then_taken_and_one_byte_over_then_refused(house: House) -> None:
    async with lag() as probe:
        fits = b'"' + b"x" * (LIMIT - 2) + b'"'
        assert (await house.post(SEND, fits))[0] == 202
        status, answer = await house.post(SEND, fits + b" ")
        assert (status, answer.code) == (413, "body-too-large")
        for data, expected in ((fits, 202), (fits + b" ", 413)):
            line = await house.line()
            line.write(head(SEND, "Transfer-Encoding: chunked", "Content-Type: application/json"))
            for start in range(0, len(data), 60_000):
                line.write(chunk(data[start : start + 60_000]))
                await line.writer.drain()
            line.write(b"0\r\n\r\n")
            assert (await line.answer())[0] == expected
            await line.close()
    check(probe)


async def test_body_when_declared_without_end_then_refused_before_it_is_read(house: House) -> None:
    for length in ("99999999999999999999999999", str(LIMIT + 1)):
        line = await house.line()
        line.write(head(SEND, f"Content-Length: {length}"))
        assert (await line.answer())[0] in (400, 413)
        await line.close()


@pytest.mark.parametrize("path", [SEND, BATCH, "/v1/queues/idle/pause", "/v1/nothing"])
async def test_body_when_endless_then_the_line_is_cut_and_others_are_served(
    house: House, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = chunk(b" " * 65_000)

    async def pour(line: Line) -> None:
        line.write(head(path, "Transfer-Encoding: chunked", "Content-Type: application/json"))
        with contextlib.suppress(ConnectionError):
            while True:
                line.write(piece)
                await line.writer.drain()

    async with lag() as probe:
        lines = await house.lines(10)
        pouring = [asyncio.create_task(pour(line), name="pour") for line in lines]
        slowest_s = max([await house.serves() for _ in range(10)])
        _, pending = await asyncio.wait(pouring, timeout=server._LINGER_S + 8)
        assert not pending
    for line in lines:
        await line.close()
    print(f"others were served within {slowest_s * 1000:.0f} ms")
    assert slowest_s < 5
    check(probe)


async def test_bodies_when_many_are_large_and_slow_then_their_room_is_bounded_and_small_ones_pass(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "ROOM_BYTES", 4 << 20)
    async with serving(config) as house:
        lines = await house.lines(10)
        for line in lines:
            line.write(head(SEND, f"Content-Length: {LIMIT}") + b"x" * (LIMIT - 1))
        answers = [asyncio.create_task(line.answer(), name="answer") for line in lines]
        await until(lambda: sum(answer.done() for answer in answers) >= 5)
        assert {answer.result()[0] for answer in answers if answer.done()} == {429}
        await house.serves()
        for line in lines:
            await line.close()
        await asyncio.wait(answers)
        for answer in answers:
            answer.exception()  # the end of its line
        await until_async(lambda: large_fits(house))


async def large_fits(house: House) -> bool:
    """The room is given back."""
    return (await house.post(SEND, b'"' + b"x" * 900_000 + b'"'))[0] == 202


# Too slow


async def test_headers_when_a_byte_at_a_time_then_cut_off_at_the_deadline(config: Config) -> None:
    async with serving(config, keepalive_s=2.0) as house:
        lines = await house.lines(50)
        began_at = time.perf_counter()

        async def drip(line: Line) -> None:
            with contextlib.suppress(ConnectionError, RuntimeError):  # the latter is uvloop's
                for byte in head(SEND, "X-Slow: " + "x" * 1000):
                    line.write(bytes([byte]))
                    await line.writer.drain()
                    await asyncio.sleep(0.05)
                    if line.reader.at_eof():
                        return

        async with lag() as probe:
            dripping = [asyncio.create_task(drip(line), name="drip") for line in lines]
            slowest_s = max([await house.serves() for _ in range(10)])
            await asyncio.wait(dripping, timeout=8)
        assert time.perf_counter() - began_at < 8
        print(f"others were served within {slowest_s * 1000:.0f} ms")
        assert slowest_s < 5
        check(probe)
        for line in lines:
            await line.close()


@pytest.mark.parametrize("headers", [("Content-Length: 1000",), ("Transfer-Encoding: chunked",)])
async def test_body_when_a_byte_at_a_time_then_408_at_the_deadline(config: Config, headers: Sequence[str]) -> None:
    async with serving(config, body_deadline_s=0.4) as house:
        lines = await house.lines(50)

        async def drip(line: Line) -> tuple[int, bytes]:
            line.write(head(SEND, *headers))
            answer = asyncio.create_task(line.answer(), name="answer")
            while not answer.done():
                line.write(b"x" if "Length" in headers[0] else chunk(b"x"))
                await asyncio.wait([answer], timeout=0.05)
            return answer.result()

        async with lag() as probe:
            answers = await asyncio.wait_for(asyncio.gather(*(drip(line) for line in lines)), 5)
        assert {status for status, _ in answers} == {408}
        check(probe)
        for line in lines:
            await line.close()


async def test_answer_when_its_reader_is_stuck_then_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_LOOK_S", 0.1)
    for _ in range(4):
        assert (await house.post(SEND, b'"' + b"x" * (LIMIT - 2) + b'"'))[0] == 202
    line = await house.line()
    for _ in range(5):  # 20 MiB of answers, more than the sockets' buffers take
        line.write(head(f"{SEND}?limit=200", method="GET"))
    began_at = time.perf_counter()
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)
    line.writer.transport.resume_reading()  # type: ignore[attr-defined]
    got = len(await asyncio.wait_for(line.ended(), 5))
    assert got < 20 << 20
    assert time.perf_counter() - began_at < 5
    await line.close()


# Too many


async def test_connections_when_two_thousand_idle_then_others_are_served(house: House) -> None:
    async def come_and_go() -> None:
        lines = await house.lines(2000)
        slowest_s = max([await house.serves() for _ in range(10)])
        print(f"others were served within {slowest_s * 1000:.0f} ms")
        assert slowest_s < 5
        for line in lines:
            line.writer.transport.abort()
        await house.serves()

    await hold(come_and_go)


async def test_connections_when_more_than_there_is_room_for_then_the_idle_ones_go(config: Config) -> None:
    async with serving(config, connections=20) as house:
        lines = await house.lines(100)
        slowest_s = 0.0
        for _ in range(5):
            async with aiohttp.ClientSession() as session:
                slowest_s = max(slowest_s, await House(house.url, session, house.admission).serves())
        print(f"others were served within {slowest_s * 1000:.0f} ms")
        assert slowest_s < 5
        assert sum(line.reader.at_eof() for line in lines) >= 80
        for line in lines:
            await line.close()


async def test_connections_when_all_are_being_answered_then_a_new_one_is_turned_away(config: Config) -> None:
    async with serving(config, connections=10) as house:
        assert (await house.post(f"{SEND}?id=one", b"1"))[0] == 202
        waiting = await house.lines(10)  # the fair client, who idles now, has gone for the last of them
        for line in waiting:
            line.write(head(f"{SEND}/one?wait=30", method="GET"))
        await asyncio.gather(*(line.writer.drain() for line in waiting))
        await until(lambda: not any(guest.is_idle for guest in house.admission._new))
        late = await house.line()
        assert await asyncio.wait_for(late.ended(), 2) == b""
        assert not any(line.reader.at_eof() for line in waiting)
        for line in (*waiting, late):
            await line.close()
        await until(lambda: len(house.admission) == 0)


# Not HTTP, not JSON, not a name


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),  # TLS
        (b"GET / HTTP/9.9\r\n\r\n", {400}),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (head("/", "X: " + "a" * 20_000, method="GET"), {400}),
        (head("/", *("X: a" for _ in range(1000)), method="GET"), {400}),
        (head("/", "X: a\x00b", method="GET"), {400}),
        (head("/", "X: a\rSet-Cookie: b", method="GET"), {400}),
        (head("/", " folded: b", method="GET"), {400}),
        (head(SEND, "Content-Length: 1", "Content-Length: 2") + b"1", {400}),
        (head(SEND, "Content-Length: 1", "Transfer-Encoding: chunked") + b"1\r\n1\r\n0\r\n\r\n", {400}),
        (head(SEND, "Content-Length: -1") + b"1", {400}),
        (head(SEND, "Content-Length: 1e3") + b"1", {400}),
        (head(SEND, "Transfer-Encoding: chunked") + b"zz\r\n", {400}),
        (head(SEND, "Transfer-Encoding: chunked") + b"ffffffffffffffffffff\r\n", {400, 413}),
        (head(SEND, "Transfer-Encoding: gzip") + b"1", {400}),
        (head(SEND, "Content-Length: 1", "Content-Encoding: gzip") + b"1", {415}),
        (head(SEND, "Content-Length: 1", "Content-Type: " + "a" * 5000) + b"1", {415}),
        (head(SEND, "Content-Length: 1", "Content-Type: text/plain\t;\x7f") + b"1", {400, 415}),
        (head("/v1/queues/a%0d%0aSet-Cookie:x/messages", "Content-Length: 1") + b"1", {400}),
        (head("/v1/queues/%00/messages", "Content-Length: 1") + b"1", {400}),
        (head("/v1/queues/%ff%fe/messages", "Content-Length: 1") + b"1", {400}),
        (head("/v1/queues/..%2f..%2fetc/messages", "Content-Length: 1") + b"1", {400}),
        (head("/v1/queues/{a}/messages", "Content-Length: 1") + b"1", {404}),
        (head("/v1/queues/" + "q" * 129 + "/messages", "Content-Length: 1") + b"1", {400}),
        (head("/static/../../../../etc/passwd", method="GET"), {404}),
        (head("/static/%2e%2e/%2e%2e/etc/passwd", method="GET"), {404}),
        (head("/static/..%5c..%5cpages.py", method="GET"), {404}),
        (head("//etc/passwd", method="GET"), {400, 404}),
        (head("http://elsewhere/../", method="GET"), {200, 400, 404}),
        (head("*", method="OPTIONS"), {400, 404, 405}),
        (head("/v1/queues", method="CONNECT"), {400, 404, 405}),
        (head("/v1/queues", method="BREW"), {400, 405}),
        (head("/v1/queues?" + "&".join(f"a{n}=1" for n in range(900)), method="GET"), {400}),
        (head("/", "Connection: Upgrade", "Upgrade: websocket", method="GET"), {200}),
        (head("/", "Expect: 200-ok", method="GET"), {417}),
        (head("/", "X-Request-Id: a\tb<script>", method="GET"), {200}),
    ],
)
async def test_request_when_it_breaks_the_rules_then_the_answer_is_stable(
    house: House, raw: bytes, expected: set[int]
) -> None:
    async with lag() as probe:
        status, code = await house.ask(raw)
    assert status in expected
    assert status < 400 or code in PROBLEMS
    check(probe)


async def test_request_when_fuzzed_then_nothing_but_4xx_and_no_log(house: House) -> None:
    """Real requests with bytes cut, doubled and replaced, as many as fit into a second or two."""
    seeds = [
        head(SEND, "Content-Length: 7", "Content-Type: application/json") + b'{"a":1}',
        head(BATCH, "Content-Length: 12", "Content-Type: application/x-ndjson") + b'{"body": 1}\n',
        head(SEND, "Transfer-Encoding: chunked") + b"1\r\n1\r\n0\r\n\r\n",
        head(f"{SEND}?limit=1&cursor=0", "Prefer: wait=0", method="GET"),
        head(f"{SEND}/one/replay", "Idempotency-Key: a"),
        head("/v1/schedules/tick", "Content-Length: 12", method="PUT") + b'{"every": 5}',
    ]
    mutation = st.tuples(st.integers(0, 400), st.integers(0, 8), st.binary(max_size=12))
    loop = asyncio.get_running_loop()

    @given(seed=st.sampled_from(seeds), mutations=st.lists(mutation, max_size=4))
    @settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def fuzz(seed: bytes, mutations: list[tuple[int, int, bytes]]) -> None:
        for at, cut, data in mutations:
            seed = seed[: at % (len(seed) + 1)] + data + seed[at % (len(seed) + 1) + cut :]
        status, code = asyncio.run_coroutine_threadsafe(house.ask(seed, 0.1), loop).result(10)
        assert status < 500
        assert status < 400 or code in PROBLEMS

    async with lag() as probe:
        await asyncio.to_thread(fuzz)
    check(probe)


NASTY_JSON = {
    "small lists": b"[" + b"[[[]]]," * 140_000 + b"1]",
    "small objects": b"[" + b'{"a":1},' * 120_000 + b"1]",
    "numbers": b"[" + b"1," * 500_000 + b"1]",
    "keys": b"{" + b",".join(b'"%x":1' % n for n in range(100_000)) + b"}",
    "one number": b"1" * 4000,
    "escapes": b'"' + b"\\u0001" * 170_000 + b'"',
    "deep": b"[" * 900 + b"]" * 900,
}


@pytest.mark.parametrize("name", NASTY_JSON)
async def test_json_when_nasty_but_allowed_then_the_loop_goes_on(house: House, name: str) -> None:
    async def attack() -> None:
        status, answer = await house.post(f"{ECHO}?wait=10", NASTY_JSON[name])
        assert (status, answer.state) == (200, "done")
        await house.serves()

    await hold(attack)


TOO_MUCH_JSON = {
    "too deep": b"[" * 500_000 + b"]" * 500_000,
    "half of it": b"[" + b"[[[]]]," * 140_000,
    "a huge number": b"9" * 1_000_000,
    "beyond a double": b"[" + b"1," * 400_000 + b"1e999]",
    "not UTF-8": b'["' + b"x" * 900_000 + b'\xff"]',
    "NaN": b"[NaN]",
}


@pytest.mark.parametrize("name", TOO_MUCH_JSON)
async def test_json_when_not_allowed_then_400_and_the_loop_goes_on(house: House, name: str) -> None:
    async def attack() -> None:
        for path in (SEND, ECHO):
            status, answer = await house.post(path, TOO_MUCH_JSON[name])
            assert (status, answer.code) == (400, "malformed-json")

    await hold(attack)


BATCHES = {
    "10,000 messages": (b'{"body":1}\n' * 10_000, "application/x-ndjson", 202),
    "10,000 in an array": (b"[" + b'{"body":1},' * 9_999 + b'{"body":1}]', "application/json", 202),
    "16 of a megabyte": (b'{"body":"' + b"x" * 1_000_000 + b'"}\n', "application/x-ndjson", 202),
    "a million messages": (b"[" + b'{"body":1},' * 1_400_000 + b'{"body":1}]', "application/json", 413),
    "a million lines": (b'{"body":1}\n' * 1_400_000, "application/x-ndjson", 413),
    "a million lines of form data": (b'{"body":1}\n' * 1_400_000, "application/x-www-form-urlencoded", 413),
    "a million in the second": (
        b'[{"body":[' + b"[]," * 2_000_000 + b"1]}," + b'{"body":1},' * 900_000 + b'{"body":1}]',
        "application/json",
        413,
    ),
    "blank lines": (b"\n" * (16 << 20), "application/x-ndjson", 400),
    "one long line": (b'{"body":' + b" " * 16_000_000 + b"1}", "application/x-ndjson", 202),
    "one large body": (b'[{"body":[' + b"1," * 8_000_000 + b"1]}]", "application/json", 413),
    "nested": (b'[{"body":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}]", "application/json", 400),
    "numbers": (b"[" + b"1," * 8_000_000 + b"1]", "application/json", 400),
    "the last line is bad": (b'{"body":1}\n' * 9_999 + b'{"body"', "application/x-ndjson", 400),
    "the last is bad": (b"[" + b'{"body":1},' * 9_999 + b'{"body":1,"delay":"x"}]', "application/json", 400),
}


@pytest.mark.parametrize("name", BATCHES)
async def test_batch_when_nasty_then_the_loop_goes_on_and_it_is_all_or_nothing(
    house: House, name: str, redis_client: redis.asyncio.Redis
) -> None:
    data, kind, expected = BATCHES[name]

    async def attack() -> None:
        before = await redis_client.llen("mq:idle")
        status, answer = await house.post(BATCH, data, kind)
        assert status == expected
        assert await redis_client.llen("mq:idle") - before == (len(answer.ids) if status == 202 else 0)

    await hold(attack)


# Clients that leave


async def test_client_when_it_leaves_anywhere_then_nothing_is_left_of_it(house: House) -> None:
    assert (await house.post(f"{SEND}?id=one", b'"' + b"x" * 900_000 + b'"'))[0] == 202
    whole = head(SEND, "Content-Length: 7") + b'{"a":1}'
    cuts = [whole[:end] for end in range(0, len(whole), 7)]
    cuts += [
        head(SEND, "Content-Length: 1000000") + b"x" * 70_000,
        head(BATCH, "Transfer-Encoding: chunked", "Content-Type: application/x-ndjson") + chunk(b'{"body": 1}\n{"bo'),
        head(f"{SEND}/one?wait=30", method="GET"),
        head(f"{SEND}?wait=30", "Content-Length: 1") + b"1",
        head(f"{SEND}?wait=30", "Content-Length: 1", "Idempotency-Key: k") + b"1",
        head(f"{SEND}?limit=200", method="GET") * 20,
    ]
    before = len(asyncio.all_tasks())
    async with lag() as probe:
        for cut in cuts:
            for abort in (True, False):
                line = await house.line()
                line.write(cut)
                await line.writer.drain()
                await asyncio.sleep(0.002)
                if abort:
                    line.writer.transport.abort()
                await line.close()
        await until(lambda: len(asyncio.all_tasks()) <= before)
    check(probe)


async def test_batch_when_the_client_leaves_before_its_end_then_nothing_was_kept(
    house: House, redis_client: redis.asyncio.Redis
) -> None:
    line = await house.line()
    line.write(head(BATCH, "Transfer-Encoding: chunked", "Content-Type: application/x-ndjson"))
    line.write(chunk(b'{"body": 1}\n' * 100))
    await line.writer.drain()
    await house.serves()
    await line.close()
    await house.serves()
    assert await redis_client.llen("mq:idle") == 0
