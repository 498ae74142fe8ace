"""The model of schedules: what one is, when it is due, and what becomes of due times that nobody fired.

Pure. Used by the configuration (what may be set), the store, the scheduler and the web. Layer 1, since the
configuration holds schedules. All processes must agree on due times: they follow from the schedule alone, never from
where or since when somebody counts. Their zone files are the one thing that may differ between machines.

`every` is due at whole multiples of its period since 1970-01-01T00:00Z. Cron is read by cronsim, as Debian's cron
would, with a sixth field in front for seconds if wanted. When the clocks of its zone change:

- Five fields, and neither minute nor hour starts with `*`: a time of the day. One that is skipped is due when the gap
  ends (02:30 at 03:00); one that is repeated is due once, the first time.
- Any other counts real time: nothing is due in an hour that does not exist, and a repeated hour counts twice.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from itertools import count, islice, takewhile
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from mqservice import keys
from mqservice.errors import InvalidName, InvalidSchedule

Misfire = Literal["skip", "coalesce", "catch_up"]
Overlap = Literal["allow", "skip"]

GRACE_MS: Final = 2000
"""A due time is missed when nobody fired it for so long.

A process learns of a change within 1 s, and takes over from one that died while firing within 1 s.
"""

CATCH_UP: Final = 1000
"""At most so many missed due times are caught up with, the latest ones."""

_UNIT_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_PERIOD = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,10})?) ?([smhd]?)")
_LONGEST_S: Final = 366 * 86_400
_NEXT_TIMES: Final = 5


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent where, and when. `valid_schedule` says whether it can be."""

    name: str
    queue: str
    body: Any = None
    """Any JSON value; the body of each message."""
    cron: str | None = None
    every: float | None = None
    """Seconds, at least 1, to the millisecond. Exactly one of cron and every is set."""
    tz: str = "UTC"
    """IANA zone of the cron expression."""
    misfire: Misfire = "coalesce"
    """Due times missed by all processes: none of them, the latest one for all, or each is fired."""
    overlap: Overlap = "allow"
    """skip: a due time is passed over while the message of the one fired before has not ended."""
    paused: bool = False
    """Nothing is due while paused; what was due then is not made up for."""


class ScheduleView(Schedule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule as people see it. Times are RFC 3339, UTC."""

    source: str
    """Who put it: config or api."""
    last_at: str | None
    """The latest due time that was fired."""
    skipped: int
    """Due times passed over for overlap."""
    next: list[str]
    """The next five due times; none while paused."""


class Rule(NamedTuple):
    """What one value of a schedule must be, as a test and in words."""

    accepts: Callable[[Any], bool]
    expected: str


def every_s(period: float | str) -> float | None:
    """Return seconds for a number of them or text such as "30s", "5m", "1.5h", "1d"; None when it is no period."""
    if isinstance(period, str):
        match = _PERIOD.fullmatch(period)
        if not match:
            return None
        period = float(match[1]) * _UNIT_S[match[2]]
    return round(period, 3) if 1 <= period <= _LONGEST_S else None


def _is_schedule_name(name: str) -> bool:
    return len(name) <= 100 and _is_name(name)  # with a due time it becomes a message id


def _is_name(name: str) -> bool:
    try:
        keys.valid_name(name)
    except InvalidName:
        return False
    return True


def _is_cron(expression: str) -> bool:
    try:
        return len(expression) <= 200 and next(_cron_times(expression, UTC, 0), None) is not None
    except CronSimError:
        return False


def _is_zone(name: str) -> bool:
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a directory of zones
        return False
    return name != "localtime"  # every machine has its own


RULES: Final[dict[str, Rule]] = {
    "name": Rule(_is_schedule_name, "1 to 100 of A-Z a-z 0-9 . _ : -"),
    "queue": Rule(_is_name, "the name of a queue, 1 to 128 of A-Z a-z 0-9 . _ : -"),
    "cron": Rule(_is_cron, 'a cron expression that is due at some time, such as "30 7 * * MON-FRI"'),
    "every": Rule(lambda period: every_s(period) is not None, 'seconds, 1 to a year of them, or such as "30s" or "5m"'),
    "tz": Rule(_is_zone, 'an IANA time zone such as "Europe/Berlin"'),
}
"""Key → rule, where the type alone does not say it."""


def valid_schedule(schedule: Schedule) -> Schedule:
    """Return the schedule with a body of plain JSON values, or raise InvalidSchedule, whose text names the key."""
    try:
        schedule = msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule)
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidSchedule(str(error)) from None
    for key, rule in RULES.items():
        value = getattr(schedule, key)
        if value is not None and not rule.accepts(value):
            raise InvalidSchedule(f"{key} = {_shown(value)}: expected {rule.expected}")
    if trouble := conflict(schedule):
        raise InvalidSchedule(": ".join(trouble))
    return msgspec.structs.replace(schedule, every=schedule.every and every_s(schedule.every))


def conflict(schedule: Schedule) -> tuple[str, str] | None:
    """Return a key and what is wrong with it beside the others, None when they fit together."""
    if schedule.cron is None and schedule.every is None:
        return "cron", "a schedule needs one of cron and every"
    if schedule.cron is not None and schedule.every is not None:
        return "every", "a schedule has only one of cron and every"
    if schedule.every is not None and schedule.tz != "UTC":
        return "tz", "only a cron expression has a time zone; every counts from 1970-01-01T00:00Z"
    return None


def message_id(name: str, due_ms: int) -> str:
    """Return the id of the message of one due time: the same in every process, so that it cannot be sent twice."""
    return f"schedule:{name}:{due_ms}"


def due_times(schedule: Schedule, after_ms: int) -> Iterator[int]:
    """Yield the due times later than `after_ms`, epoch ms, ascending. Only a cron may come to an end."""
    if schedule.every is not None:
        period_ms = round(schedule.every * 1000)
        return count((after_ms // period_ms + 1) * period_ms, period_ms)
    return _cron_times(schedule.cron or "", _zone(schedule.tz), after_ms)


def next_due(schedule: Schedule, after_ms: int) -> int | None:
    """Return the first due time later than `after_ms`; None while paused, or when there is none for 50 years."""
    return None if schedule.paused else next(due_times(schedule, after_ms), None)


def pending(schedule: Schedule, floor_ms: int, now_ms: int) -> list[int]:
    """Return the due times to be fired at `now_ms`, oldest first, as the misfire policy has it.

    `floor_ms`: the latest that was dealt with, or when the schedule began. At most 1,000.
    """
    if schedule.paused:
        return []
    if schedule.misfire == "catch_up":
        return latest_due(schedule, floor_ms, now_ms, CATCH_UP)
    missed_ms = max(floor_ms, now_ms - GRACE_MS)
    missed = latest_due(schedule, floor_ms, missed_ms, 1) if schedule.misfire == "coalesce" else []
    return missed + latest_due(schedule, missed_ms, now_ms, CATCH_UP)


def latest_due(schedule: Schedule, after_ms: int, upto_ms: int, most: int) -> list[int]:
    """Return the latest `most` due times in (after_ms, upto_ms], ascending.

    Halves the time when there are more, so that a year of seconds takes 0.04 s: cronsim is exact forwards only, in the
    hours around a change of clocks.
    """
    if most <= 0 or after_ms >= upto_ms:
        return []
    found = list(islice(takewhile(lambda due_ms: due_ms <= upto_ms, due_times(schedule, after_ms)), most + 1))
    if len(found) <= most:
        return found
    middle_ms = (after_ms + upto_ms) // 2
    later = latest_due(schedule, middle_ms, upto_ms, most)
    return latest_due(schedule, after_ms, middle_ms, most - len(later)) + later


def next_times(schedule: Schedule, after_ms: int) -> list[str]:
    """Return the next five due times as RFC 3339, UTC; none while paused."""
    times = () if schedule.paused else due_times(schedule, after_ms)
    return [rfc3339(due_ms) for due_ms in islice(times, _NEXT_TIMES)]


def rfc3339(epoch_ms: int) -> str:
    """Return epoch ms as RFC 3339 text, UTC."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cron_times(expression: str, zone: tzinfo, after_ms: int) -> Iterator[int]:
    last_ms = after_ms
    for moment in CronSim(expression, datetime.fromtimestamp(after_ms // 1000, zone)):
        due_ms = int(moment.timestamp()) * 1000
        if due_ms > last_ms:  # asked within a repeated hour, the first answer may lie in the past
            last_ms = due_ms
            yield due_ms


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)  # a machine without zone files still knows UTC


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"
