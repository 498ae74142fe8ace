"""What routes answer with, and how it becomes a response."""

from typing import Any, Literal

from aiohttp import web
from msgspec import Struct

from mqservice.config import Scope
from mqservice.message import JSON
from mqservice.message_view import State
from mqservice.processes import ProcessView
from mqservice.queue_views import QueueView
from mqservice.schedules import ScheduleView
from mqservice.web.edge import JSON_HEADERS


class Accepted(Struct, frozen=True):
    """A message that Redis has. At most once there is no record: then `id` is null."""

    id: str | None
    state: State
    """Not only the first two: an id that existed already answers with what has become of it."""


class AcceptedBatch(Struct, frozen=True):
    """Messages that Redis has, in the order in which they were sent."""

    ids: list[str]


class Published(Struct, frozen=True):
    """`receivers`: connections that got it. 0 is no error: nobody listens."""

    id: str
    receivers: int


class Deleted(Struct, frozen=True):
    """How many messages were deleted."""

    deleted: int


class Cancelled(Struct, frozen=True):
    """`cancelling`: it was active, and its coroutine is being cancelled."""

    id: str
    state: Literal["cancelled", "cancelling"]


class Replayed(Struct, frozen=True):
    """How many dead messages were replayed."""

    replayed: int


class Paused(Struct, frozen=True):
    """Whether the queue hands out messages."""

    name: str
    paused: bool


class Queues(Struct, frozen=True):
    """All queues, by name."""

    queues: list[QueueView]


class Processes(Struct, frozen=True):
    """All processes that run, by name."""

    processes: list[ProcessView]


class Schedules(Struct, frozen=True):
    """All schedules, by name."""

    schedules: list[ScheduleView]


class Session(Struct, frozen=True):
    """Who one is. `name` null: no tokens are configured. `queues` null: all, and what belongs to no queue."""

    name: str | None
    scopes: list[Scope]
    queues: list[str] | None
    expires_s: int | None
    """When the session ends, seconds since 1970; null: it is no session but the token."""


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a JSON response."""
    return web.Response(body=JSON.encode(body), status=status, headers={**JSON_HEADERS, **(headers or {})})


def message_path(queue: str, message_id: str) -> str:
    """Return the path of a message, for Location. Names need no encoding."""
    return f"/v1/queues/{queue}/messages/{message_id}"
