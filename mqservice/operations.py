"""What people do to queues: cancel, replay, purge, pause, delete. Each is a script or a bounded loop of them.

Used by the web.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from mqservice import keys, scripts
from mqservice.broker import claim_token
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import QueueInUse
from mqservice.processes import Processes
from mqservice.queue_views import CONSUMER_SILENT_MS

Purgeable = Literal["ready", "scheduled", "dead", "done", "cancelled"]

_CHUNK = 100
"""Messages a script call: about a millisecond of Redis' time."""

_MANY = 250
"""The same where the whole queue goes: about 2 ms."""

_SCANNED = 1000
"""Keys that one step of the walk looks at."""

_PAGE = 500
"""Ids a read."""


class Operations:
    """The operations on one queue. All raise Unavailable and its kin; all are safe to repeat."""

    def __init__(self, connections: Connections, queue: QueueOptions) -> None:
        self._connections, self._queue = connections, queue
        self._key = queue.key

    async def cancel(self, message_id: str) -> str | None:
        """Cancel a message. 1 round trip.

        Return `cancelled` (it was ready, scheduled or cancelled), `cancelling` (active: its coroutine is being
        cancelled, wherever it runs), `done` or `dead` (too late), None (unknown).
        """
        args = [message_id, int(self._queue.failure_ttl_s * 1000)]
        answer: bytes | None = await self._connections.run(scripts.CANCEL, self._key, args)
        return answer.decode(errors="replace") if answer else None

    async def replay(self, message_id: str) -> str | None:
        """Replay a dead message: dead → ready, with new budgets.

        Return `replayed`, or the state that it was in and is still; None: unknown.
        """
        (answer,) = await self._replay([message_id], [0])
        return "replayed" if answer == "ready" else answer.removeprefix("=") or None

    async def replay_all(
        self,
        *,
        reason: str | None = None,
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int = 1000,
        rate: float = 0.0,
    ) -> int:
        """Replay up to `limit` dead messages, oldest first; return how many.

        `since_ms` and `until_ms` bound the time of death (epoch ms, 0: open). With a `rate` per second they become
        scheduled, one after the other at that pace, so the pace outlives this process.
        """
        ids = await self._dead_ids(reason, since_ms, until_ms, limit)
        replayed = 0
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            delays = [int((start + n) * 1000 / rate) if rate else 0 for n in range(len(chunk))]
            answers = await self._replay(chunk, delays)
            replayed += sum(not answer.startswith("=") and answer != "" for answer in answers)
        return replayed

    async def purge(self, state: Purgeable) -> int:
        """Delete all messages that are in this state now; return how many. 1 round trip per 100."""
        return await self._purge(state, _CHUNK)

    async def delete(self) -> int:
        """Delete the queue with everything that it keeps; return how many messages went.

        Each script call deletes at most 250 messages, so that a million of them hold nobody up; at the end one
        walk over the names of all keys finds what no listing leads to. Messages sent meanwhile stay, and with them
        the queue. Raises QueueInUse.
        """
        await self._refuse_if_used(await self._look_or_delete(delete=False))
        began_ms = await self._now_ms()
        deleted = 0
        for state in reversed(get_args(Purgeable)):  # cancelled before ready, where their entries still are
            deleted += await self._purge(state, _MANY)
        deleted += await self._sweep(began_ms)
        left = await self._look_or_delete(delete=True)
        await self._refuse_if_used(left)
        if not any(left):
            await self._connections.guard(lambda: self._connections.commands.srem(keys.QUEUES, self._queue.name))
            await Processes(self._connections).forget(self._queue.name)
        return deleted

    async def pause(self) -> None:
        """Hand out no message of this queue, in any process, until `resume`. What is active goes on."""
        info = keys.part(self._key, "info")
        await self._connections.guard(lambda: self._connections.commands.hset(info, "paused", "1"))

    async def resume(self) -> None:
        """End a pause, and wake a consumer."""

        async def call() -> None:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                pipeline.hdel(keys.part(self._key, "info"), "paused")
                pipeline.rpush(keys.part(self._key, "bell"), "1")
                await pipeline.execute()

        await self._connections.guard(call)

    async def _purge(self, state: Purgeable, chunk: int) -> int:
        deleted = 0
        left = await self._length(state)
        while left > 0:
            taken, gone = await self._connections.run(scripts.PURGE, self._key, [state, chunk])
            deleted += gone
            left -= taken
            if taken < chunk:
                break
        return deleted

    async def _look_or_delete(self, *, delete: bool) -> list[int]:
        """Return how many consumers, active and waiting messages are in the way; delete when there are none."""
        args = [CONSUMER_SILENT_MS, int(delete)]
        found: list[int] = await self._connections.run(scripts.DELETE, self._key, args)
        return found

    async def _refuse_if_used(self, found: Sequence[int]) -> None:
        consumers, active, _ = found
        if consumers or active:
            raise QueueInUse(f"queue {self._queue.name} has {consumers} consumers and {active} active messages")

    async def _now_ms(self) -> int:
        seconds, micros = await self._connections.guard(self._connections.commands.time)
        return int(seconds) * 1000 + int(micros) // 1000

    async def _sweep(self, before_ms: int) -> int:
        """Delete the messages sent before then that no listing leads to, and what belongs to nobody."""
        redis, base = self._connections.commands, keys.part(self._key, "").encode()
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", base) + b"*"
        cursor, deleted = -1, 0
        while cursor:

            async def scan(start: int = max(0, cursor)) -> tuple[int, list[bytes]]:
                return cast("tuple[int, list[bytes]]", await redis.scan(start, match=pattern, count=_SCANNED))

            cursor, found = await self._connections.guard(scan)
            if found:
                names = [key.removeprefix(base) for key in found]
                deleted += await self._connections.run(scripts.SWEEP, self._key, [before_ms, *names])
        return deleted

    async def _replay(self, ids: Sequence[str], delays_ms: Sequence[int]) -> list[str]:
        args: list[Any] = [claim_token()]
        for message_id, delay_ms in zip(ids, delays_ms, strict=True):
            args += (message_id, delay_ms)
        answers = await self._connections.run(scripts.REPLAY, self._key, args)
        return [answer.decode(errors="replace") for answer in answers]

    async def _dead_ids(self, reason: str | None, since_ms: int, until_ms: int, limit: int) -> list[str]:
        redis, dead = self._connections.commands, keys.part(self._key, "dead")
        low, high = since_ms or "-inf", until_ms or "+inf"
        found: list[str] = []
        offset = 0
        while len(found) < limit:

            async def page(start: int = offset) -> list[bytes]:
                if not since_ms and not until_ms:  # by rank: no walk to the offset
                    return cast("list[bytes]", await redis.zrange(dead, start, start + _PAGE - 1))
                ids = await redis.zrange(dead, low, high, byscore=True, offset=start, num=_PAGE)
                return cast("list[bytes]", ids)

            ids = [message_id.decode() for message_id in await self._connections.guard(page)]
            found += await self._with_reason(ids, reason) if reason else ids
            offset += len(ids)
            if len(ids) < _PAGE:
                break
        return found[:limit]

    async def _with_reason(self, ids: Sequence[str], reason: str) -> list[str]:
        async def read() -> list[bytes | None]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for message_id in ids:
                    pipeline.hget(keys.record(self._key, message_id), "reason")
                return await pipeline.execute()

        reasons = await self._connections.guard(read)
        wanted = reason.encode()
        return [message_id for message_id, its in zip(ids, reasons, strict=True) if its == wanted]

    async def _length(self, state: Purgeable) -> int:
        redis = self._connections.commands
        key = self._key if state == "ready" else keys.part(self._key, state)

        async def count() -> int:
            if state in ("scheduled", "dead"):
                return int(await redis.zcard(key))
            return int(await redis.llen(key))

        return await self._connections.guard(count)
