"""Connections to Redis of three kinds, never mixed, and the one gate through which commands pass.

Used by the broker, the bell and the channels; opened and closed by the service. The gate gives every call a
deadline of ours, turns the driver's errors into ours, and says once when an outage starts and once when it ends.

redis-py's own timeouts and retries are off: on Python 3.11 its socket timeout swallows cancellations, and its silent
re-sends double what is not idempotent.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from redis import exceptions as driver
from redis.asyncio import Redis

from mqservice.config import RedisConfig, full_url, redacted
from mqservice.embedded import EmbeddedServer
from mqservice.errors import ConfigError, Misconfigured, MqError, OutOfMemory, Refused, Unavailable, WrongType
from mqservice.retry import Backoff
from mqservice.scripts import Script
from mqservice.wires import CONNECT_S, Line, Wires, client

T = TypeVar("T")
log = structlog.get_logger()

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FEW = 4
_LEAST_S = 0.1
"""What is left to the last try of a call that is insisted on."""
_PASSING = (
    "OOM",
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "UNBLOCKED",
    "CLUSTERDOWN",
    "BUSY",
)

_REFUSALS = (driver.AuthenticationError, driver.NoPermissionError)
_NO_RIGHT = ("NOAUTH", "NOPERM", "ACL failure")
"""What is no error class of the driver's: asked without a password, and a script whose user may not do all it does."""


def translate(error: BaseException) -> MqError:
    """Return our error for one of the driver's, of the socket's, or of uvloop's."""
    text = str(error) or type(error).__name__
    # What goes wrong while a connection is made comes as the cause of a plain ConnectionError.
    if isinstance(error, _REFUSALS) or isinstance(error.__cause__, _REFUSALS) or text.startswith(_NO_RIGHT):
        return Misconfigured(f"Redis refuses us: {text}")
    if isinstance(error, driver.ResponseError) and not text.startswith(_PASSING):
        if "WRONGTYPE" in text:
            return WrongType(f"a key of this queue holds something else: {text}")
        if not isinstance(error, (driver.OutOfMemoryError, driver.ReadOnlyError)):
            return Refused(text)
    if isinstance(error, driver.OutOfMemoryError) or text.startswith("OOM"):
        return OutOfMemory("Redis is full (maxmemory): what is queued is safe and drains, new messages are refused")
    # The rest passes: connection and socket errors, and uvloop's RuntimeError on a connection reset while idle.
    return Unavailable(f"Redis is not available: {text}")


class Connections:
    """All connections of one process to one Redis.

    Scripts have connections of their own, and `commands` is a waiting pool for everything else. Blocking and
    subscriber connections are made with `single()`, one for each consumer or subscriber. `tells`: outages are logged.
    """

    def __init__(self, url: str, deadline_s: float = 5.0, pool: int = 16, *, tells: bool = True) -> None:
        self.url, self._tells = url, tells
        self.deadline_s = deadline_s
        self.call_s = deadline_s / 2
        """How long one call may take: half the deadline, so that one lost reply leaves time for a second call."""
        self.commands = client(url, pool)
        self._wires, self._line = Wires(url, pool), Line(url)
        self._down_since: float | None = None
        self.outages = self.reconnects = 0
        """How often Redis went away, and came back."""
        self._away_s = 0.0
        self._refused_writes = False

    @property
    def away_s(self) -> float:
        """For how long Redis has been away so far, all outages together."""
        return self._away_s + (0.0 if self._down_since is None else time.monotonic() - self._down_since)

    def again(self) -> "Connections":
        """Return the same anew, for another event loop, with few connections for commands. The caller closes it.

        It logs no outage: these do, and one line is enough.
        """
        return Connections(self.url, self.deadline_s, _FEW, tells=False)

    def single(self) -> Redis:
        """Return a client with one connection of its own. The caller closes it."""
        return client(self.url, 1)

    async def run(
        self, script: Script, key: str, args: Sequence[Any], deadline_s: float | None = None, *, in_order: bool = False
    ) -> Any:
        """Run a script once, in one round trip (two the first time after a restart of Redis).

        `in_order`: after those which were run so before, without waiting for their answers.
        Raises Unavailable when Redis did not answer within the deadline: the script may have run.
        """
        over = self._line if in_order else self._wires

        async def call() -> Any:
            try:
                return await over.call("EVALSHA", script.sha, 1, key, *args)
            except driver.NoScriptError:
                return await over.call("EVAL", script.source, 1, key, *args)

        return await self.guard(call, deadline_s, writes=True)

    async def insist(
        self,
        script: Script,
        key: str,
        args: Sequence[Any],
        patience_s: float | None,
        *,
        in_order: bool = False,
    ) -> Any:
        """Run a script, which may run twice, until it is answered. `in_order` as `run`.

        Raises the last Unavailable after `patience_s` (None: never), and OutOfMemory at once.
        """
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s if patience_s is not None else None
        while True:
            try:
                deadline_s = self.call_s if end is None else min(self.call_s, max(_LEAST_S, end - loop.time()))
                return await self.run(script, key, args, deadline_s, in_order=in_order)
            except OutOfMemory:
                raise
            except Unavailable:
                wait_s = backoff.next_s()
                if end is not None and loop.time() + wait_s >= end:
                    raise
                await asyncio.sleep(wait_s)

    async def guard(
        self,
        call: Callable[[], Awaitable[T]],
        deadline_s: float | None = None,
        *,
        quiet: bool = False,
        writes: bool = False,
    ) -> T:
        """Await `call()` within `deadline_s` (default: `call_s`); raise only MqError.

        A connection whose call was cut off is closed by the driver and never used again. `quiet`: a failure is no
        outage worth a log line. `writes`: Redis would refuse the call when it refuses writes.
        """
        try:
            async with asyncio.timeout(deadline_s or self.call_s):
                answer = await call()
        except (driver.RedisError, OSError, TimeoutError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "closed" not in str(error):
                raise  # not uvloop's way to say that the connection was reset while idle
            failure = translate(error)
            if isinstance(failure, Unavailable) and not quiet:
                self._went_down(failure, isinstance(error, driver.ResponseError))
            await self._drop_suspects(error)
            raise failure from error
        if self._down_since is not None and (writes or not self._refused_writes):
            self._came_back()
        return answer

    async def ask(self, fill: Callable[[Any], None], script: Script | None = None) -> list[Any]:
        """Return what each command answers that `fill` puts into a pipeline. 1 round trip.

        Where a key holds something else than the command wants, the answer is WrongType. `script`: what `fill` calls by
        its SHA; it is loaded when Redis does not know it. Raises MqError.
        """

        async def call() -> list[Any]:
            async with self.commands.pipeline(transaction=False) as pipeline:
                fill(pipeline)
                return [_or_wrong_type(answer) for answer in await pipeline.execute(raise_on_error=False)]

        try:
            return await self.guard(call)
        except Refused as failure:
            if script is None or not isinstance(failure.__cause__, driver.NoScriptError):
                raise
        await self.load([script])
        return await self.guard(call)

    async def read_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return what commands that only read answer. 1 round trip, at a tenth of what `ask` costs. Raises MqError."""
        return await self.guard(lambda: self._wires.call_all(commands))

    async def load(self, scripts: Sequence[Script]) -> None:
        """Put the scripts into the cache of Redis. 1 round trip. Raises MqError."""

        async def call() -> None:
            async with self.commands.pipeline(transaction=False) as pipeline:
                for script in scripts:
                    pipeline.script_load(script.source)
                await pipeline.execute()

        await self.guard(call)

    async def version(self) -> str:
        """Return product and version of the server, such as "Valkey 9.1.2". 1 round trip."""
        info = await self.guard(lambda: self.commands.info("server"))
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info['redis_version']}"

    async def aclose(self) -> None:
        """Close every connection of the pool; calls under way fail."""
        await self._line.aclose()
        await self._wires.aclose()
        await self.commands.aclose()

    async def _drop_suspects(self, error: BaseException) -> None:
        """Close the connections that are no better than the one that failed.

        Idle ones after a deadline: a flow that was forgotten on the way is rarely alone, and each would cost a
        deadline of its own. Those in use too, once their calls have ended, after a demotion: the address may lead to
        another server by now.
        """
        pool = self.commands.connection_pool
        demoted = isinstance(error, driver.ReadOnlyError) or str(error).startswith("UNBLOCKED")
        if demoted:
            await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        if demoted or isinstance(error, TimeoutError):
            await self._line.drop(in_use=demoted)
            await self._wires.drop(in_use=demoted)
            with contextlib.suppress(driver.RedisError, OSError, RuntimeError):
                await pool.disconnect(inuse_connections=False)

    def _went_down(self, failure: Unavailable, refused: bool) -> None:
        self._refused_writes = refused
        if self._down_since is None:
            self._down_since = time.monotonic()
            self.outages += 1
            if self._tells:
                log.warning("redis away", error=str(failure))

    def _came_back(self) -> None:
        if self._down_since is not None:
            if self._tells:
                log.warning("redis back", away_s=round(time.monotonic() - self._down_since, 1))
            self._away_s, self.reconnects = self.away_s, self.reconnects + 1
            self._down_since, self._refused_writes = None, False


async def open_redis(config: RedisConfig) -> tuple[str, EmbeddedServer | None]:
    """Return the URL to use, and the private server when that is what answers there.

    "auto" starts the private server only in place of a loopback address where nobody listens: a Redis that is far,
    slow or loading must never be replaced by an empty one. Raises Unavailable, Misconfigured, ConfigError or
    EmbeddedError.
    """
    url = full_url(config)
    if config.embedded == "always" or (config.embedded == "auto" and await _nobody_listens(url)):
        server = await EmbeddedServer.join(Path(config.data_dir) if config.data_dir else None)
        return server.url(database(url)), server
    connections = Connections(url, config.deadline_s, 1)
    try:
        await connections.guard(connections.commands.ping, CONNECT_S, quiet=True)
    except Unavailable as error:
        raise Unavailable(f"no Redis at {redacted(config.url)}: {error}") from error
    finally:
        await connections.aclose()
    return url, None


def database(url: str) -> int:
    """Return the database number that a Redis URL names; 0 when none. Raises ConfigError."""
    number = urlsplit(url).path.strip("/") or "0"
    if urlsplit(url).scheme == "unix":
        return 0
    if not number.isdigit():
        raise ConfigError(f'redis.url: database {number!r} in "{redacted(url)}" is not a number')
    return int(number)


def _or_wrong_type(answer: Any) -> Any:
    if not isinstance(answer, Exception):
        return answer
    failure = translate(answer)
    if isinstance(failure, WrongType):
        return failure
    raise answer


async def _nobody_listens(url: str) -> bool:
    address = urlsplit(url)
    if address.scheme == "unix" or address.hostname not in _LOOPBACK:
        return False
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(address.hostname, address.port or 6379)
    except TimeoutError:
        return False
    except OSError:
        return True  # refused, at every address of the name
    writer.close()
    return False
