"""How redis-py is opened, and the connections on which scripts run.

Used by `connections` alone. redis-py's own way to run a command (pool, retry, telemetry) costs 55 µs of CPU beside the
command, 4 times what sending and reading one cost; our scripts come in tens a second and each message waits for two.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from mqservice.tls import TlsConnection

CONNECT_S = 3.0


class _PackedByHiredis:
    """Packs a command in C: 0.4 µs instead of 4.5 µs a message in a settle of a hundred, half of our CPU there."""

    def pack_command(self, *args: Any) -> list[bytes]:
        if " " in args[0]:
            args = (*args[0].split(), *args[1:])  # SCRIPT LOAD is two words to Redis
        try:
            return [hiredis.pack_command(args)]
        except TypeError:  # a type that only redis-py knows to encode, or refuses with a better error
            return super().pack_command(*args)  # type: ignore[misc,no-any-return]


def client(url: str, connections: int) -> Redis:
    """Return a client with its own pool of at most `connections`, bytes in and out, nothing done behind our back."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=CONNECT_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    kind = TlsConnection if pool.connection_class is SSLConnection else pool.connection_class
    pool.connection_class = type(kind.__name__, (_PackedByHiredis, kind), {})
    return Redis.from_pool(pool)


class Wires:
    """At most `limit` connections, opened when needed and kept; one caller at a time on each, the rest wait."""

    def __init__(self, url: str, limit: int) -> None:
        self._pool = client(url, limit).connection_pool
        self._all: list[AbstractConnection] = []
        self._free: list[AbstractConnection] = []
        self._room = asyncio.Semaphore(limit)

    async def call(self, *command: Any) -> Any:
        """Send one command and return its answer. Raises redis-py's errors, and OSError."""
        return (await self.call_all([command]))[0]

    async def call_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one go and return their answers. Raises as `call`: the first error, when all are read.

        A connection that fails, or whose caller is cancelled, is closed: its answers may still come.
        """
        async with self._room:
            wire = self._free.pop() if self._free else self._new()
            try:
                if wire.is_connected and await wire.can_read():  # an end, or what nobody asked for
                    await wire.disconnect(nowait=True)
                packed = [part for command in commands for part in wire.pack_command(*command)]
                await wire.send_packed_command(packed, check_health=False)
                answers = [await _answer(wire) for _ in commands]
            except BaseException:
                await wire.disconnect(nowait=True)
                raise
            finally:
                if wire.should_reconnect():  # type: ignore[no-untyped-call]
                    await wire.disconnect(nowait=True)
                self._free.append(wire)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return answers

    async def drop(self, *, in_use: bool) -> None:
        """Close idle connections, and with `in_use` the others once they have their answers."""
        for wire in self._all:
            if wire in self._free:
                await wire.disconnect(nowait=True)
            elif in_use:
                wire.mark_for_reconnect()  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        """Close every connection; calls under way fail."""
        for wire in self._all:
            await wire.disconnect()

    def _new(self) -> AbstractConnection:
        wire: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._all.append(wire)
        return wire


async def _answer(wire: AbstractConnection) -> Any:
    """Return the next answer, or the error that it is."""
    try:
        return await wire.read_response()
    except ResponseError as error:
        return error


class Line:
    """One connection on which commands follow each other without waiting for answers; Redis runs them in order.

    When one fails, those behind it fail too: nobody can tell any more which answer is whose.
    """

    def __init__(self, url: str) -> None:
        self._wire: AbstractConnection = client(url, 1).connection_pool.make_connection()  # type: ignore[no-untyped-call]
        self._life = 0
        """How often the connection was given up."""
        self._owed = 0
        """Answers that are still to be read."""
        self._writing, self._reading = asyncio.Lock(), asyncio.Lock()

    async def call(self, *command: Any) -> Any:
        """Send one command and return its answer. Raises redis-py's errors, and OSError."""
        async with self._writing:
            life = self._life
            if not self._owed and self._wire.is_connected and await self._wire.can_read():
                await self._wire.disconnect(nowait=True)  # an end, or what nobody asked for
            self._owed += 1
            try:
                await self._wire.send_packed_command(self._wire.pack_command(*command), check_health=False)
            except BaseException:
                self._owed -= 1
                await self._give_up()
                raise
        # A lock wakes those who wait in their order; between the two nothing is awaited.
        try:
            async with self._reading:
                if self._life != life:
                    raise ConnectionError("the answer was lost with one before it")
                answer = await self._wire.read_response()
        except ResponseError:
            raise
        except BaseException:
            if self._life == life:
                await self._give_up()
            raise
        finally:
            self._owed -= 1
        if self._wire.should_reconnect():  # type: ignore[no-untyped-call]
            await self._give_up()
        return answer

    async def drop(self, *, in_use: bool) -> None:
        """Close the connection when nothing is under way, or, with `in_use`, after the next answer."""
        if not self._owed:
            await self._wire.disconnect(nowait=True)
        elif in_use:
            self._wire.mark_for_reconnect()  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        """Close the connection; calls under way fail."""
        self._life += 1
        await self._wire.disconnect()

    async def _give_up(self) -> None:
        self._life += 1
        await self._wire.disconnect(nowait=True)
