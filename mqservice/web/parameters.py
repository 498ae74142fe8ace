"""Query parameters: one struct a route, from which they are parsed and described.

Whatever a struct does not have is refused.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from mqservice.history import Range
from mqservice.message_view import State
from mqservice.metrics import Scope
from mqservice.operations import Purgeable
from mqservice.web.problems import Refusal

Query = TypeVar("Query", bound=Struct)

YEAR_S: Final = 31_536_000
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WITH_UNIT: Final = re.compile(r"([0-9]{1,10})ms|([0-9]{1,7})s|([0-9]{1,5})m|([0-7]?[0-9]{1,3})h")
_UNITS_MS: Final = (1, 1000, 60_000, 3_600_000)


class Duration:
    """Seconds (`5`, `0.5`), or a number with its unit: `500ms`, `10s`, `5m`, `2h`. At most a year."""

    __slots__ = ("ms",)

    SCHEMA: Final = {
        "description": "Seconds, or a number with a unit: 500ms, 10s, 5m, 2h.",
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": YEAR_S},
            {"type": "string", "pattern": "^([0-9]{1,10}ms|[0-9]{1,7}s|[0-9]{1,5}m|[0-7]?[0-9]{1,3}h)$"},
        ],
    }

    def __init__(self, value: object) -> None:
        """Parse. Raises ValueError."""
        if isinstance(value, str):
            self.ms = _from_text(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self.ms = _from_seconds(value)
        else:
            self.ms = -1
        if not 0 <= self.ms <= YEAR_S * 1000:
            raise ValueError("expected seconds (5, 0.5) or 500ms, 10s, 5m, 2h; at most a year")


class Moment:
    """A point in time, RFC 3339 with its offset: `2030-01-31T08:00:00Z`."""

    __slots__ = ("epoch_ms",)

    SCHEMA: Final = {"type": "string", "format": "date-time"}

    def __init__(self, value: object) -> None:
        """Parse. Raises ValueError."""
        try:
            moment = msgspec.convert(value, _Moment)
        except msgspec.ValidationError:
            raise ValueError("expected RFC 3339 with an offset, such as 2030-01-31T08:00:00Z") from None
        self.epoch_ms = max(1, math.floor(moment.timestamp() * 1000))  # below, 0 means that there is none


_Moment = Annotated[datetime, Meta(tz=True)]

EVENT_ID_PATTERN: Final = "^[0-9]{1,15}-[0-9]{1,15}$"

NAME_PATTERN: Final = "^[A-Za-z0-9._:-]{1,128}$"
"""As `keys.valid_name`, which has the last word: this `$` lets a line feed pass."""

CHANNEL_PATTERN: Final = "^[A-Za-z0-9._:*-]{1,128}$"
"""As `keys.valid_pattern`."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Attempts = Annotated[int, Meta(ge=1, le=1000, description="Runs until a failing message is dead.")]
Delay = Annotated[Duration, Meta(description="Not before so long from now.")]
Ttl = Annotated[Duration, Meta(description="Dead with reason `expired` unless it was started by then. 0: never.")]
RetryWait = Annotated[Duration, Meta(description="The wait after the first failed attempt; doubles with each.")]
Wait = Annotated[Duration, Meta(description="Wait so long for the message to end; 300 s at most.")]
Reason = Literal["failed", "rejected", "crashed", "expired", "undecodable", "no_handler"]


class NoQuery(Struct, frozen=True):
    """No parameters."""


class SendQuery(Struct, frozen=True):
    """How to send."""

    delay: Delay | UnsetType = UNSET
    at: Annotated[Moment, Meta(description="Not before then; instead of `delay`, at most a year away.")] | UnsetType = (
        UNSET
    )
    ttl: Ttl | UnsetType = UNSET
    attempts: Attempts | UnsetType = UNSET
    retry: RetryWait | UnsetType = UNSET
    id: (
        Annotated[Name, Meta(description="Your own id. Sending it again is the same message, not another.")] | UnsetType
    ) = UNSET
    unique: (
        Annotated[Name, Meta(description="Refused (409) while another message with this key is unfinished.")]
        | UnsetType
    ) = UNSET
    wait: Wait | UnsetType = UNSET


class WaitQuery(Struct, frozen=True):
    """Whether to wait."""

    wait: Wait | UnsetType = UNSET


class PageQuery(Struct, frozen=True):
    """Which page of messages."""

    state: State = "ready"
    limit: Annotated[int, Meta(ge=1, le=200, description="Messages a page.")] = 50
    cursor: Annotated[str, Meta(description="That of the page before.", max_length=200)] | UnsetType = UNSET


class PurgeQuery(Struct, frozen=True):
    """What to delete."""

    state: Annotated[Purgeable, Meta(description="Messages in this state are deleted.")]


class ReplayQuery(Struct, frozen=True):
    """Which dead messages to replay, and how fast."""

    reason: Reason | UnsetType = UNSET
    since: Annotated[Moment, Meta(description="Died then or later.")] | UnsetType = UNSET
    until: Annotated[Moment, Meta(description="Died then or before.")] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=100_000, description="So many at most, the oldest first.")] = 1000
    rate: Annotated[float, Meta(ge=0, le=1_000_000, description="A second; 0: all at once.")] = 0.0


class StatsQuery(Struct, frozen=True):
    """How far to look back."""

    range: Annotated[Range, Meta(description="The last two minutes, hour or day.")] = "2m"


class MetricsQuery(Struct, frozen=True):
    """Whose metrics."""

    scope: Annotated[Scope, Meta(description="Those of the process that answers, or of all.")] = "process"


Limit = Annotated[int, Meta(ge=1, le=1_000_000, description="End after so many events; else never.")]


class StreamQuery(Struct, frozen=True):
    """How much of a stream."""

    limit: Limit | UnsetType = UNSET


class ResumeQuery(Struct, frozen=True):
    """How much of a stream, and after which event."""

    limit: Limit | UnsetType = UNSET
    last_event_id: (
        Annotated[str, Meta(pattern=EVENT_ID_PATTERN, description="As the header Last-Event-ID, which comes first.")]
        | UnsetType
    ) = UNSET


def parse(request: web.Request, query: type[Query]) -> Query:
    """Return the query parameters of a request. Raises Refusal."""
    if not request.rel_url.raw_query_string:
        return cast("Query", plain(query))
    given = request.query
    for name in given:
        if name not in query.__struct_fields__:
            known = ", ".join(query.__struct_fields__) or "none here"
            raise Refusal("invalid-parameter", f"there is no query parameter {name[:60]!r}; known: {known}")
        if len(given.getall(name)) > 1:
            raise Refusal("invalid-parameter", f"query parameter {name!r} is given twice")
    return _convert(given, query)


@cache
def plain(query: type[Query]) -> Query:
    """Return what no parameters at all are, the same each time. Raises Refusal when one is needed."""
    return _convert({}, query)


def _convert(given: Mapping[str, str], query: type[Query]) -> Query:
    try:
        return msgspec.convert(dict(given), query, strict=False, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        raise Refusal("invalid-parameter", f"query parameter: {error}".replace("`$.", "`")) from None


def dec_hook(kind: type, value: Any) -> Any:
    """Make msgspec understand Duration and Moment."""
    if kind in (Duration, Moment):
        return kind(value)
    raise NotImplementedError(kind)


def _from_text(text: str) -> int:
    if _NUMBER.fullmatch(text):
        return _from_seconds(float(text))
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        return -1
    return next(int(number) * unit for number, unit in zip(match.groups(), _UNITS_MS, strict=True) if number)


def _from_seconds(seconds: float) -> int:
    """Round up, so that what is not 0 stays so; 0 means something else for a ttl."""
    return math.ceil(seconds * 1000) if 0 <= seconds <= YEAR_S else -1
