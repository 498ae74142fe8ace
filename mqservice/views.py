"""What people see of queues and messages. Reads only; used by the web and by waiters."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from mqservice import keys
from mqservice.broker import MARK
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import BadCursor
from mqservice.message import Attempt, decode_meta, readable
from mqservice.queue_views import QueueView, look

State = Literal["ready", "scheduled", "active", "done", "dead", "cancelled"]


class Progress(Struct, frozen=True):
    """How far the handler says it is: 0 to 1, and a word."""

    fraction: float
    text: str
    at_ms: int


class MessageView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as its record has it. Times are RFC 3339, UTC."""

    id: str
    queue: str
    state: State
    body: Any
    """JSON when it is JSON, else text, else {"base64": ...}."""
    content_type: str = ""
    headers: dict[str, str] = {}
    result: Any | UnsetType = UNSET
    error: Attempt | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    """The last ten failed ones, oldest first."""
    attempts_used: int = 0
    crashes: int = 0
    deliveries: int = 0
    sent_at: str
    due_at: str | UnsetType = UNSET
    claimed_at: str | UnsetType = UNSET
    finished_at: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    by: str | UnsetType = UNSET


class Page(Struct, frozen=True):
    """Some messages, and where the next page starts; None: this was the last."""

    messages: list[MessageView]
    cursor: str | None


class Views:
    """The views of one queue."""

    def __init__(self, connections: Connections, queue: QueueOptions) -> None:
        self._connections, self._queue = connections, queue
        self._key = queue.key

    async def message(self, message_id: str) -> MessageView | None:
        """Return one message, None when there is none with this id. 1 round trip."""
        return (await self.messages([message_id]))[0]

    async def messages(self, ids: Sequence[str]) -> list[MessageView | None]:
        """Return several, in the order of `ids`. 1 round trip."""

        if not ids:
            return []

        async def read() -> list[Any]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                pipeline.hmget(keys.part(self._key, "leases"), list(ids))
                for message_id in ids:
                    pipeline.hgetall(keys.record(self._key, message_id))
                return await pipeline.execute()

        leases, *records = await self._connections.guard(read)
        name = self._queue.name
        return [_view(*one, name) for one in zip(ids, records, leases, strict=True)]

    async def page(self, state: str, limit: int, cursor: str | None) -> Page:
        """Return up to `limit` messages of a state: ready, scheduled and active by who is next, others newest first.

        Raw bodies that nobody has adopted yet are shown with the id `""`. Raises BadCursor.
        """
        start = _position(cursor)
        entries = await self._connections.guard(lambda: self._entries(state, start, limit + 1))
        more = str(start + limit) if len(entries) > limit else None
        entries = entries[:limit]
        marked = state != "ready"
        ids = [e.removeprefix(MARK).decode() for e in entries if marked or e.startswith(MARK)]
        known = dict(zip(ids, await self.messages(ids), strict=True)) if ids else {}
        views = []
        for entry in entries:
            if marked or entry.startswith(MARK):
                view = known[entry.removeprefix(MARK).decode()]
                if view is not None and view.state == state:
                    views.append(view)
            else:
                views.append(
                    MessageView(id="", queue=self._queue.name, state="ready", body=readable(entry), sent_at="")
                )
        return Page(views, more)

    async def queue(self) -> QueueView:
        """Return the queue's numbers. 2 round trips."""
        return (await look(self._connections, [self._queue])).queues[0]

    async def _entries(self, state: str, start: int, count: int) -> list[bytes]:
        redis, last = self._connections.commands, start + count - 1
        key = self._key if state == "ready" else keys.part(self._key, state)
        if state in ("ready", "done", "cancelled"):
            return cast("list[bytes]", await redis.lrange(key, start, last))
        return cast("list[bytes]", await redis.zrange(key, start, last, desc=state == "dead"))


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise BadCursor(f"cursor {cursor[:40]!r} was not given out by a page")
    return int(cursor)


def _view(message_id: str, record: Mapping[bytes, bytes], lease: bytes | None, queue: str) -> MessageView | None:
    if b"state" not in record or b"purged" in record:
        return None
    # The leases were read before the records: one that has ended meanwhile is no longer active.
    state = b"active" if lease and record[b"state"] in (b"ready", b"scheduled") else record[b"state"]
    _, deliveries, claimed_ms, by = (lease or record.get(b"lease") or b" 0  ").split(b" ", 3)
    meta = decode_meta(record.get(b"meta"))
    history = [msgspec.json.decode(line, type=Attempt) for line in record.get(b"history", b"").splitlines()]
    return MessageView(
        id=message_id,
        queue=queue,
        state=cast("State", state.decode()),
        body=readable(record.get(b"body", record.get(b"blob", b""))),
        content_type=meta.content_type,
        headers=meta.headers,
        result=msgspec.json.decode(record[b"result"]) if b"result" in record else UNSET,
        error=msgspec.json.decode(record[b"error"], type=Attempt) if b"error" in record else UNSET,
        reason=record[b"reason"].decode() if b"reason" in record else UNSET,
        progress=_progress(record[b"progress"]) if b"progress" in record else UNSET,
        attempts=history,
        attempts_used=int(record.get(b"attempts", 0)),
        crashes=int(record.get(b"crashes", 0)),
        deliveries=int(deliveries),
        sent_at=_time(record.get(b"sent", b"0")),
        due_at=_time(record[b"due"]) if state == b"scheduled" else UNSET,
        claimed_at=_time(claimed_ms) if claimed_ms else UNSET,
        finished_at=_time(record[b"finished"]) if b"finished" in record else UNSET,
        expires_at=_time(record[b"expires"]) if b"expires" in record else UNSET,
        by=by.decode() if by else UNSET,
    )


def _progress(stored: bytes) -> Progress:
    at_ms, fraction, text = stored.split(b" ", 2)
    return Progress(float(fraction), text.decode(errors="replace"), int(at_ms))


def _time(epoch_ms: bytes) -> str:
    return datetime.fromtimestamp(int(epoch_ms) / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
