"""Schedules: list, look, put, delete."""

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from mqservice.errors import InvalidSchedule
from mqservice.schedules import Misfire, Overlap, Schedule, every_s
from mqservice.web.access import caller, demand_queue, sees
from mqservice.web.answers import Schedules, answer
from mqservice.web.body import read_content
from mqservice.web.context import CONTEXT
from mqservice.web.parameters import Name
from mqservice.web.problems import Refusal


class ScheduleBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent where, and when: exactly one of cron and every."""

    queue: Name
    body: Annotated[Any, Meta(description="The body of each message.")] = None
    cron: Annotated[str, Meta(description="Five fields as in crontab, or six with seconds in front.")] | None = None
    every: Annotated[float | str, Meta(description="Seconds, at least 1, or such as 30s, 5m, 1h, 1d.")] | None = None
    tz: Annotated[str, Meta(description="IANA time zone of the cron expression.")] = "UTC"
    misfire: Annotated[
        Misfire, Meta(description="Due times missed by all processes: none, the latest one for all, or each is fired.")
    ] = "coalesce"
    overlap: Annotated[Overlap, Meta(description="skip: pass over while the message before has not ended.")] = "allow"
    paused: bool = False


_BODY: Final = msgspec.json.Decoder(ScheduleBody)


async def index(request: web.Request) -> web.Response:
    """List all schedules, with their next five times."""
    schedules = await request.app[CONTEXT].schedules.list()
    return answer(Schedules([each for each in schedules if sees(request, each.queue)]))


async def view(request: web.Request) -> web.Response:
    """Show one schedule, with its next five times."""
    return await _view(request, 200)


async def put(request: web.Request) -> web.Response:
    """Make a schedule, or replace the one of this name. Every process notices within a second.

    Each due time is fired once, by whichever process comes first, with a message id that follows from it.
    """
    content = await read_content(request)
    if content.type:
        raise Refusal("unsupported-type", f"{content.type} is no schedule: application/json")
    schedule = _schedule(request.match_info["name"], content.body)
    demand_queue(request, schedule.queue)
    await _check_own(request, schedule.name)
    created = await request.app[CONTEXT].schedules.put(schedule)
    return await _view(request, 201 if created else 200)


async def delete(request: web.Request) -> web.Response:
    """Delete a schedule. Messages that it has sent stay."""
    name = request.match_info["name"]
    await _check_own(request, name)
    if not await request.app[CONTEXT].schedules.delete(name):
        raise _unknown(name)
    return web.Response(status=204)


async def _view(request: web.Request, status: int) -> web.Response:
    name = request.match_info["name"]
    found = await request.app[CONTEXT].schedules.get(name)
    if found is None or not sees(request, found.queue):
        raise _unknown(name)
    return answer(found, status, {"Location": f"/v1/schedules/{name}"} if status == 201 else None)


async def _check_own(request: web.Request, name: str) -> None:
    """Refuse to replace or delete the schedule of a queue that the caller may not see."""
    if caller(request).queues is not None:
        found = await request.app[CONTEXT].schedules.get(name)
        if found is not None:
            demand_queue(request, found.queue)


def _schedule(name: str, body: bytes) -> Schedule:
    try:
        given = _BODY.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidSchedule(str(error)) from None
    every = given.every if isinstance(given.every, float) else _period(given.every)
    return Schedule(name=name, **{**msgspec.structs.asdict(given), "every": every})


def _period(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = every_s(text)
    if seconds is None:
        raise InvalidSchedule(f"every = {text[:40]!r}: expected seconds, or such as 30s, 5m, 1h, 1d")
    return seconds


def _unknown(name: str) -> Refusal:
    return Refusal("no-such-schedule", f"there is no schedule {name}")
