"""The pop of at-most-once queues: BLPOP on the ready list itself.

Used by the popper. What it returned is gone from Redis; a connection that dies at the wrong moment takes a message
along. That is what at-most-once means.
"""

from collections.abc import Sequence
from typing import cast

import structlog

from mqservice import keys
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.message import Claimed, Meta, Receipt

log = structlog.get_logger()

_GRACE_S = 5.0
_NO_TYPE = Meta()


class Pop:
    """Takes bodies off one list, on a connection of its own."""

    def __init__(self, connections: Connections, queue: QueueOptions, mark: bytes) -> None:
        self._connections, self._queue, self._mark = connections, queue, mark
        self._redis = connections.single()
        self._taken = 0

    async def take(self, room: int) -> list[Claimed]:
        """Wait up to one bell timeout for a message; return it and up to `room - 1` more that are there already."""
        key = self._queue.key

        async def pop() -> list[bytes]:
            first = await self._redis.blpop([key], timeout=self._queue.bell_s)
            if first is None:
                return []
            entries = [cast("bytes", first[1])]
            if room > 1:
                entries += cast("list[bytes] | None", await self._redis.lpop(key, room - 1)) or []
            return entries

        entries = await self._connections.guard(pop, self._queue.bell_s + _GRACE_S)
        claimed = [await self._claimed(entry) for entry in entries]
        return [each for each in claimed if each is not None]

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()

    async def _claimed(self, entry: bytes) -> Claimed | None:
        self._taken += 1
        if entry.startswith(self._mark):
            return await self._recorded(entry.removeprefix(self._mark).decode(errors="replace"))
        return Claimed(Receipt(f"popped-{self._taken}", ""), entry, _NO_TYPE, 0, 0, 0)

    async def _recorded(self, message_id: str) -> Claimed | None:
        """A message with a record, sent while the queue was at-least-once: the record goes with it. None: no record."""
        record = keys.record(self._queue.key, message_id)

        async def read() -> Sequence[bytes | None]:
            if await self._redis.type(record) != b"hash":
                return [None, None]  # gone, or somebody else's key, which stays
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hmget(record, ["body", "blob"])
                pipeline.unlink(record)
                values: Sequence[bytes | None] = (await pipeline.execute())[0]
                return values

        body, blob = await self._connections.guard(read)
        if body is None and blob is None:
            log.warning("popped an id that has no record", queue=self._queue.name, id=message_id)
            return None
        return Claimed(Receipt(message_id, ""), body or blob or b"", _NO_TYPE, 0, 0, 0)
