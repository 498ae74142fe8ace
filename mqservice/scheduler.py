"""The scheduler: fires what is due, in every process alike; there is no leader.

Run by the service as one watched task. Each due time is sent under one message id, whoever sends it, and marked in the
store after it was sent: a process that dies between the two leaves a due time that the next one sends again, which
does nothing. Taking turns only spares work, see `scripts/schedule_take.lua`. To a queue whose delivery is at most once
it is the other way round: marked first, by exactly one, then sent.

Time is that of Redis; the wall clock of the machine is never read. Costs each process one round trip a second (TIME and
HMGET), and three per due time; whoever is not on turn, one or two.

Not guaranteed: a process that is held up for longer than a turn between taking it and sending, until after the record
of the message has expired (`result_ttl_s`), sends it again.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from mqservice.config import QueueOptions
from mqservice.errors import OutOfMemory, Unavailable, WrongType
from mqservice.fault import OUTAGES
from mqservice.message import encode_body
from mqservice.retry import Backoff
from mqservice.schedule_store import Changes, Schedules, Stored
from mqservice.schedules import Schedule, message_id, next_due, pending

log = structlog.get_logger()

Send = Callable[[str, bytes, str], Awaitable[str]]
"""Sends (queue, body, message id); answers as `Broker.send`."""

_GLANCE_MS = 1000
"""How often we look for changed schedules, and set our clock."""

_TURN_MS = 1000
"""After this long another process takes over from one that has died while firing."""

_BATCH = 50
"""Due times of one schedule at a time, so that catching up does not hold up the others."""

_AGAIN_MS = 1000
"""When to try again after the queue itself refused: full, out of memory, a key of another type."""

_UNFINISHED = ("ready", "scheduled", "active")


@dataclass(eq=False)
class _Entry:
    stored: Stored
    look_at_ms: float
    """When there is something to do; infinity: never."""
    refused: bool = False

    @property
    def name(self) -> str:
        return self.stored.schedule.name


class _Full(Exception):
    """The queue has reached its `max_length`."""


class Scheduler:
    """Fires all schedules of a Redis, together with the schedulers of other processes.

    `options`: of a queue by name. `configured`: schedules of this process's configuration, put into the store at start
    and again whenever Redis has lost them; `owner` tells apart the applications that share a Redis. `monotonic`:
    seconds, of any origin.
    """

    def __init__(
        self,
        store: Schedules,
        send: Send,
        options: Callable[[str], QueueOptions],
        configured: Sequence[Schedule] = (),
        owner: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._send, self._options = store, send, options
        self._configured, self._owner = configured, owner
        self._monotonic = monotonic
        self._taker = secrets.token_hex(8)
        self._entries: dict[str, _Entry] = {}
        self._seen: Changes | None = None
        self._offset_ms = 0.0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Fire nothing new. `run()` returns when what is under way has been sent. Works before start and twice."""
        self._stopping.set()

    async def run(self) -> None:
        """Fire what is due until stopped. Waits out outages of Redis; raises what went wrong with our own code."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                await self._glance()
                await self._fire_until(self._now_ms() + _GLANCE_MS)
                backoff.reset()
            except OUTAGES as error:
                if not isinstance(error, Unavailable):  # those are logged once an outage, by the connections
                    log.error("scheduler out of order", error=str(error))
                await self._rest(backoff.next_s())

    # What there is to do

    async def _glance(self) -> None:
        changes = await self._set_clock()
        if self._seen is None or changes.lost_since(self._seen):
            await self._store.sync(self._configured, self._owner)
            changes = await self._set_clock()
        if changes != self._seen:
            stored = await self._store.load()
            self._entries = {name: _Entry(each, _due_after(each, each.floor_ms)) for name, each in stored.items()}
            self._seen = changes

    async def _set_clock(self) -> Changes:
        """Set our clock to that of Redis; it lags by the way of the reply, so that we are never early."""
        glance = await self._store.glance()
        self._offset_ms = glance.now_ms - self._monotonic() * 1000
        return glance.changes

    def _now_ms(self) -> float:
        return self._monotonic() * 1000 + self._offset_ms

    async def _fire_until(self, end_ms: float) -> None:
        while not self._stopping.is_set() and (now_ms := self._now_ms()) < end_ms:
            entry = min(self._entries.values(), key=lambda each: each.look_at_ms, default=None)
            if entry is not None and entry.look_at_ms <= now_ms:
                await self._look(entry)
            else:
                next_ms = min(entry.look_at_ms, end_ms) if entry else end_ms
                await self._rest(max(1.0, next_ms - now_ms) / 1000)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    # One schedule

    async def _look(self, entry: _Entry) -> None:
        """Fire what is pending of one schedule, if it is our turn, and note when to look again."""
        turn = await self._store.take(entry.name, self._taker, _TURN_MS)
        if turn is None:
            del self._entries[entry.name]
            return
        if turn.wait_ms > 0:
            entry.look_at_ms = turn.now_ms + turn.wait_ms
            return
        entry.stored = turn.stored
        dues = pending(turn.stored.schedule, turn.stored.floor_ms, turn.now_ms)
        try:
            complete = await self._fire_all(entry, dues[:_BATCH], turn.now_ms + _TURN_MS)
        except (_Full, OutOfMemory, WrongType) as error:
            self._postpone(entry, error)
            return
        entry.refused = False
        if complete and len(dues) <= _BATCH:
            entry.look_at_ms = _due_after(entry.stored, turn.now_ms)

    async def _fire_all(self, entry: _Entry, dues: Sequence[int], turn_ends_ms: float) -> bool:
        """Fire or skip due times one after the other. False: our view of the schedule is stale, or the turn over."""
        for due_ms in dues:
            if self._stopping.is_set() or self._now_ms() >= turn_ends_ms:
                return False
            if await self._overlaps(entry.stored):
                marked = await self._mark(entry.stored, due_ms, "skipped")
            else:
                marked = await self._fire(entry.stored, due_ms)
                entry.stored = entry.stored._replace(fired_ms=due_ms)
            if not marked:
                return False
        return True

    async def _overlaps(self, stored: Stored) -> bool:
        schedule = stored.schedule
        if schedule.overlap == "allow" or not stored.fired_ms:
            return False
        previous = message_id(schedule.name, stored.fired_ms)
        return await self._store.message_state(self._options(schedule.queue).key, previous) in _UNFINISHED

    async def _fire(self, stored: Stored, due_ms: int) -> bool:
        """Send the message of a due time and mark it. False: somebody did both before, or the schedule has changed."""
        once = self._options(stored.schedule.queue).delivery == "at-most-once"
        if once and not await self._mark(stored, due_ms, "fired"):
            return False
        schedule = stored.schedule
        answer = await self._send(schedule.queue, encode_body(schedule.body), message_id(schedule.name, due_ms))
        log.debug("schedule fired", schedule=schedule.name, due_ms=due_ms, answer=answer)
        if answer == "full":
            raise _Full("the queue has reached its max_length")
        return once or await self._mark(stored, due_ms, "fired")

    async def _mark(self, stored: Stored, due_ms: int, kind: Literal["fired", "skipped"]) -> bool:
        return await self._store.mark(stored.schedule.name, stored.rev, due_ms, kind)

    def _postpone(self, entry: _Entry, error: Exception) -> None:
        """The queue takes nothing now. What is not fired within the grace is missed, as if nobody had been there."""
        if not entry.refused:
            log.warning("schedule refused by its queue", schedule=entry.name, error=str(error))
        entry.refused = True
        entry.look_at_ms = self._now_ms() + _AGAIN_MS


def _due_after(stored: Stored, after_ms: int) -> float:
    due_ms = next_due(stored.schedule, after_ms)
    return math.inf if due_ms is None else due_ms
