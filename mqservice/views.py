"""What people see of the messages of a queue, and of the queue. Reads only; used by the web and by waiters."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from mqservice import keys, scripts
from mqservice.broker import MARK
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import BadCursor, WrongType
from mqservice.message_view import FIELDS, MessageView, Page, message_view, raw_view
from mqservice.queue_views import QueueView, look
from mqservice.records import number, text

SHOWN_BYTES: Final = 2 << 20
"""A larger body is not shown: to read, check and write it would hold the loop for longer than others can wait."""

PAGE_BYTES: Final = 4 << 20
"""A page ends when its bodies and results come to so much."""

_PAGE_STEP: Final = 10
_AT_ONCE_BYTES: Final = 256 << 10


class Views:
    """The views of one queue. All raise Unavailable and its kin, and WrongType."""

    def __init__(self, connections: Connections, queue: QueueOptions) -> None:
        self._connections, self._queue = connections, queue
        self._key = queue.key

    async def message(self, message_id: str) -> MessageView | None:
        """Return one message, None when there is none with this id. 1 round trip, 2 with a large body."""
        return (await self.messages([message_id]))[0]

    async def messages(self, ids: Sequence[str | bytes]) -> list[MessageView | None]:
        """Return several, in the order of `ids`. 1 round trip, 2 with large bodies."""
        if not ids:
            return []
        records = await self._records(ids)
        blobs = await self._blobs(ids, records)
        views, bytes_ = [], 0
        for message_id, record in zip(ids, records, strict=True):
            blob = blobs.get(message_id)
            views.append(message_view(_shown_id(message_id), self._queue.name, record, blob))
            bytes_ += sum(len(field) for field in record.values()) + len(blob or b"")
            if bytes_ > _AT_ONCE_BYTES:  # let the loop turn: a thousand waits may end at once
                bytes_ = 0
                await asyncio.sleep(0)
        return views

    async def page(self, state: str, limit: int, cursor: str | None) -> Page:
        """Return up to `limit` messages of a state: ready, scheduled and active by who is next, others newest first.

        Fewer, with a cursor, when their bodies and results come to 4 MiB. Raw bodies that nobody has adopted yet are
        shown with the id `""`. Raises BadCursor.
        """
        start = position = _position(cursor)
        end = start + limit
        views: list[MessageView] = []
        bytes_ = 0
        while position < end and bytes_ < PAGE_BYTES:
            wanted = min(_PAGE_STEP, end - position)
            entries = await self._entries(state, position, wanted)
            found = await self._listed(state, entries)
            views += found
            bytes_ += sum(view.size for view in found)
            position += len(entries)
            if len(entries) < wanted and bytes_ < PAGE_BYTES:
                return Page(views, None)
        more = await self._entries(state, position, 1)
        return Page(views, str(position) if more else None)

    async def queue(self) -> QueueView:
        """Return the queue's numbers. 2 round trips."""
        view = await self.queue_or_fault()
        if view.fault:
            raise WrongType(view.fault)
        return view

    async def queue_or_fault(self) -> QueueView:
        """Return the queue's numbers, or why there are none: one queue that is out of order hides no other."""
        return (await look(self._connections, [self._queue])).queues[0]

    async def _records(self, ids: Sequence[str | bytes]) -> list[dict[str, bytes]]:
        """Return the fields of each record, with its lease as `leased` and the size of its blob as `blob_bytes`."""

        def read(pipeline: Any) -> None:
            pipeline.hmget(keys.part(self._key, "leases"), list(ids))
            for message_id in ids:
                key = keys.listed_record(self._key, message_id)
                pipeline.hmget(key, FIELDS)
                pipeline.hstrlen(key, "blob")

        leases, *answers = await self._connections.ask(read)
        if isinstance(leases, WrongType):
            raise leases
        return [_known(*one) for one in zip(answers[::2], answers[1::2], leases, strict=True)]

    async def _blobs(
        self, ids: Sequence[str | bytes], records: Sequence[Mapping[str, bytes]]
    ) -> dict[str | bytes, bytes]:
        large = [
            i for i, record in zip(ids, records, strict=True) if 0 < number(record.get("blob_bytes")) <= SHOWN_BYTES
        ]
        if not large:
            return {}

        def read(pipeline: Any) -> None:
            for message_id in large:
                pipeline.hget(keys.listed_record(self._key, message_id), "blob")

        blobs = await self._connections.ask(read)
        return {i: blob if isinstance(blob, bytes) else b"" for i, blob in zip(large, blobs, strict=True)}

    async def _listed(self, state: str, entries: Sequence[bytes | int]) -> list[MessageView]:
        """Return the messages of listed ids that are in this state, and raw bodies as such."""
        marked = state != "ready"
        ids = [e.removeprefix(MARK) for e in entries if isinstance(e, bytes) and (marked or e.startswith(MARK))]
        known = dict(zip(ids, await self.messages(ids), strict=True)) if ids else {}
        views = []
        for entry in entries:
            if isinstance(entry, bytes) and (marked or entry.startswith(MARK)):
                view = known[entry.removeprefix(MARK)]
                if view is not None and view.state == state:
                    views.append(view)
            else:
                views.append(raw_view(self._queue.name, entry))
        return views

    async def _entries(self, state: str, start: int, count: int) -> Sequence[bytes | int]:
        if state == "ready":
            return await self._look(start, count, SHOWN_BYTES, PAGE_BYTES)
        redis, key, last = self._connections.commands, keys.part(self._key, state), start + count - 1

        async def read() -> list[bytes]:
            if state in ("done", "cancelled"):
                return cast("list[bytes]", await redis.lrange(key, start, last))
            return cast("list[bytes]", await redis.zrange(key, start, last, desc=state == "dead"))

        return await self._connections.guard(read)

    async def _look(self, start: int, count: int, entry_bytes: int, most_bytes: int) -> list[bytes | int]:
        args = (start, count, entry_bytes, most_bytes)
        entries: list[bytes | int] = await self._connections.run(scripts.LOOK, self._key, args)
        return entries


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise BadCursor(f"cursor {cursor[:40]!r} was not given out by a page")
    return int(cursor)


def _shown_id(message_id: str | bytes) -> str:
    return message_id if isinstance(message_id, str) else text(message_id)


def _known(fields: Any, blob_bytes: Any, lease: bytes | None) -> dict[str, bytes]:
    """Return the fields that a record has; none for a key that holds something else."""
    if isinstance(fields, WrongType) or isinstance(blob_bytes, WrongType):
        return {}
    record = {name: field for name, field in zip(FIELDS, fields, strict=True) if field is not None}
    if lease:
        record["leased"] = lease
    if blob_bytes:
        record["blob_bytes"] = b"%d" % blob_bytes
    return record
