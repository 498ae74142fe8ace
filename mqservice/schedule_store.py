"""Schedules in Redis: who put which, when each began, and which due times have been dealt with.

Used by the web (put, get, list, delete), the scheduler (all else) and the service. Decides nothing about due times;
`schedules` does. Each change of a schedule is one script, atomic.

What the configuration says and what was put over the API share the names. A start puts what is configured, and
deletes what an earlier configuration of the same application (`service.app`) put and this one no longer has. It leaves
alone what was put over the API, also in place of a configured one: that lasts until it is deleted over the API and a
process starts again. A configured one that is deleted over the API comes back with the next start.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
import structlog

from mqservice import jsontext, keys, scripts
from mqservice.connections import Connections
from mqservice.errors import InvalidSchedule
from mqservice.message import JSON
from mqservice.records import number, text
from mqservice.schedules import Schedule, ScheduleView, next_times, rfc3339, valid_schedule

log = structlog.get_logger()

_SPEC = msgspec.json.Decoder(Schedule)
_FIELDS = ("spec", "source", "owner", "rev", "created", "last", "fired", "skipped")
_LEFT_ALONE = -1


class Stored(NamedTuple):
    """A schedule with what became of it. Times in epoch ms of Redis; 0: never."""

    schedule: Schedule
    source: str
    owner: str
    rev: int
    created_ms: int
    last_ms: int
    """The latest due time dealt with."""
    fired_ms: int
    """The latest due time that was sent."""
    skipped: int

    @property
    def floor_ms(self) -> int:
        """Nothing up to here is due any more."""
        return max(self.created_ms, self.last_ms)


class Changes(NamedTuple):
    """Differs from an earlier one when any schedule was put or deleted between."""

    born: int
    version: int

    def lost_since(self, earlier: "Changes") -> bool:
        """Whether Redis has lost what it had then: emptied, or an older copy of its data."""
        return self.born != earlier.born or self.version < earlier.version


class Glance(NamedTuple):
    """What a look at Redis once a second tells."""

    now_ms: int
    changes: Changes


class Turn(NamedTuple):
    """The answer to wanting to fire a schedule."""

    now_ms: int
    wait_ms: int
    """0: it is our turn; else how long that of another lasts."""
    stored: Stored


class Schedules:
    """All schedules of one Redis. Everything raises Unavailable and its kin when Redis does not answer."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def put(self, schedule: Schedule, source: str = "api") -> bool:
        """Keep the schedule, new or in place of the one of its name; return whether it is new. 1 round trip.

        With other timing (cron, every, tz, paused) it begins anew, now; else it goes on where it was. Raises
        InvalidSchedule. Processes notice within 1 s.
        """
        return await self._put(schedule, source, "") == 1

    async def get(self, name: str) -> ScheduleView | None:
        """Return one schedule as people see it, None when there is none. 1 round trip."""

        async def read() -> list[Any]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                pipeline.time()
                pipeline.hmget(keys.schedule(name), _FIELDS)
                return await pipeline.execute()

        time, values = await self._connections.guard(read)
        stored = _stored(name, values)
        return stored and _view(stored, _ms(time))

    async def list(self) -> "list[ScheduleView]":
        """Return all schedules as people see them, by name. 2 round trips."""
        now_ms = (await self.glance()).now_ms
        return [_view(stored, now_ms) for stored in (await self.load()).values()]

    async def delete(self, name: str) -> bool:
        """Delete a schedule; return whether there was one. Messages it has sent stay. 1 round trip."""
        return await self._delete(name, "")

    async def sync(self, configured: Sequence[Schedule], owner: str) -> None:
        """Put what is configured, delete what `owner` no longer configures. Changes nothing when all is as it was.

        `owner` tells applications apart that share a Redis.
        """
        for schedule in configured:
            if await self._put(schedule, "config", owner) == _LEFT_ALONE:
                log.warning("schedule put over the api goes before the configured one", schedule=schedule.name)
        wanted = {schedule.name for schedule in configured}
        for name, stored in (await self.load()).items():
            if name not in wanted and stored.source == "config" and stored.owner == owner:
                await self._delete(name, owner)

    async def glance(self) -> Glance:
        """Return the time and whether anything has changed. 1 round trip of two small commands."""

        async def read() -> Sequence[Any]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                pipeline.time()
                pipeline.hmget(keys.schedule_changes(), ("born", "version"))
                return await pipeline.execute()

        time, (born, version) = await self._connections.guard(read)
        return Glance(_ms(time), Changes(number(born), number(version)))

    async def load(self) -> dict[str, Stored]:
        """Return all schedules by name. 2 round trips. One that this version cannot read is logged and left out."""

        async def read() -> Mapping[str, Any]:
            members = cast("set[bytes]", await self._connections.commands.smembers(keys.SCHEDULES))
            names = sorted(text(member) for member in members)
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hmget(keys.schedule(name), _FIELDS)
                return dict(zip(names, await pipeline.execute(), strict=True))

        found = await self._connections.guard(read)
        loaded = {name: _stored(name, values) for name, values in found.items()}
        return {name: stored for name, stored in loaded.items() if stored is not None}

    async def take(self, name: str, taker: str, turn_ms: int) -> Turn | None:
        """Take the turn to fire what is due of a schedule. None: it does not exist any more. 1 round trip."""
        reply = await self._run(scripts.SCHEDULE_TAKE, name, taker, turn_ms)
        stored = _stored(name, reply[2:]) if reply else None
        return Turn(reply[0], reply[1], stored) if stored else None

    async def mark(self, name: str, rev: int, due_ms: int, kind: Literal["fired", "skipped"]) -> bool:
        """Note what became of a due time. False: somebody did before, or the schedule has changed. 1 round trip."""
        answer: int = await self._run(scripts.SCHEDULE_MARK, name, rev, due_ms, kind)
        return answer == 1

    async def message_state(self, list_key: str, message_id: str) -> str | None:
        """Return the state of a message, None when it has no record (any more). 1 round trip."""
        record = keys.record(list_key, message_id)
        state, sent = await self._connections.guard(lambda: self._connections.commands.hmget(record, "state", "sent"))
        return cast("bytes", state).decode() if state else "ready" if sent else None

    async def _put(self, schedule: Schedule, source: str, owner: str) -> int:
        schedule = valid_schedule(schedule)
        timing = JSON.encode((schedule.cron, schedule.every, schedule.tz, schedule.paused))
        answer: int = await self._run(scripts.SCHEDULE_PUT, schedule.name, JSON.encode(schedule), timing, source, owner)
        return answer

    async def _delete(self, name: str, owner: str) -> bool:
        deleted: int = await self._run(scripts.SCHEDULE_DELETE, name, owner)
        return deleted == 1

    async def _run(self, script: scripts.Script, *args: Any) -> Any:
        return await self._connections.run(script, keys.SCHEDULES, args)


def _stored(name: str, values: Sequence[bytes | None]) -> Stored | None:
    spec, source, owner, *numbers = values
    if spec is None:
        return None
    try:
        schedule = valid_schedule(_SPEC.decode(spec))
    except (*jsontext.FAULTS, InvalidSchedule) as error:
        # Put by another version, or on a machine with other zone files: ours alone goes without it.
        log.error("schedule unreadable", schedule=name, error=str(error))
        return None
    return Stored(schedule, text(source or b""), text(owner or b""), *(number(stored) for stored in numbers))


def _view(stored: Stored, now_ms: int) -> ScheduleView:
    return ScheduleView(
        **msgspec.structs.asdict(stored.schedule),
        source=stored.source,
        last_at=rfc3339(stored.fired_ms) if stored.fired_ms else None,
        skipped=stored.skipped,
        next=next_times(stored.schedule, max(stored.floor_ms, now_ms)),
    )


def _ms(time: tuple[int, int]) -> int:
    return time[0] * 1000 + time[1] // 1000
