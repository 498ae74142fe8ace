"""What the routes may use: handed to them by the service, so that nothing here imports it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from mqservice.broker import Broker
from mqservice.channel_history import Publication
from mqservice.config import HttpConfig
from mqservice.fanout import Fanout
from mqservice.history import History
from mqservice.idempotency import Idempotency
from mqservice.metrics import Metrics
from mqservice.numbers import Numbers
from mqservice.operations import Operations
from mqservice.processes import Processes
from mqservice.queue_streams import QueueStreams
from mqservice.results import Waiters
from mqservice.schedule_store import Schedules
from mqservice.tally import Tally
from mqservice.views import Views


@dataclass(frozen=True)
class Context:
    """The service as the routes see it."""

    broker: Callable[[str], Broker]
    """The broker of a queue by name. Raises InvalidName."""
    views: Callable[[str], Views]
    """What people see of a queue. Raises InvalidName."""
    operations: Callable[[str], Operations]
    """What people do to a queue. Raises InvalidName."""
    queues: Callable[[], Awaitable[list[str]]]
    """The names of all known queues."""
    waiters: Waiters
    """Waits for a message to end."""
    idempotency: Idempotency
    """The idempotency keys."""
    schedules: Schedules
    """The schedules of all processes."""
    processes: Processes
    """The processes that run."""
    history: History
    """What happened lately."""
    numbers: Callable[[], Awaitable[Numbers]]
    """Everything at a glance."""
    metrics: Metrics
    """What there is to scrape."""
    tally: Tally
    """What this process counts."""
    publish: Callable[[str, bytes, str], Awaitable[Publication]]
    """Publish a body to a channel by our name, with a token that makes it safe to repeat."""
    fanout: Fanout
    """The channels that clients follow."""
    queue_streams: QueueStreams
    """The queues that clients watch."""
    not_ready: Callable[[], str]
    """Why this process should get no traffic: it starts, drains, a part has died, a consumer is not answered; or ""."""
    is_alive: Callable[[], Awaitable[bool]]
    """False when only a restart helps: a consumer is stuck, though Redis answers."""
    session_key: bytes = b""
    """Signs the cookies of sessions; empty: nobody can open one, since there are no tokens."""


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
HTTP: web.AppKey[HttpConfig] = web.AppKey("http", HttpConfig)
