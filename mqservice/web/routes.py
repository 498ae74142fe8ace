"""The route table: everything that can be reached over HTTP, one entry each.

The router, /openapi.json and /docs are made of it, so none of them can know a route that another does not.
"""

from typing import Any, Final

from mqservice.fanout import ChannelMessage, Gap
from mqservice.history import Stats
from mqservice.message_view import MessageView, Page, Progress
from mqservice.numbers import Numbers, Outage
from mqservice.queue_streams import Skipped, StateEvent
from mqservice.queue_views import QueueView
from mqservice.schedules import ScheduleView
from mqservice.web import (
    assets,
    batches,
    channels,
    docs,
    health,
    live,
    log,
    messages,
    metrics,
    openapi,
    pages,
    queues,
    schedules,
    session,
    stats,
    watching,
)
from mqservice.web.answers import (
    Accepted,
    AcceptedBatch,
    Cancelled,
    Deleted,
    Paused,
    Processes,
    Published,
    Queues,
    Replayed,
    Schedules,
    Session,
)
from mqservice.web.parameters import (
    EVENT_ID_PATTERN,
    MetricsQuery,
    NoQuery,
    PageQuery,
    PurgeQuery,
    ReplayQuery,
    ResumeQuery,
    SendQuery,
    StatsQuery,
    StreamQuery,
    WaitQuery,
)
from mqservice.web.route import HTML, TEXT, Answer, Body, Events, Header, Route

QUEUES: Final = "/v1/queues"
QUEUE: Final = f"{QUEUES}/{{queue}}"
MESSAGES: Final = f"{QUEUE}/messages"
MESSAGE: Final = MESSAGES + "/{id:(?!batch$)[^/]+}"
"""Without `batch`, which would be taken for an id by the methods that the batch route does not have."""
SCHEDULES: Final = "/v1/schedules"
SCHEDULE: Final = f"{SCHEDULES}/{{name}}"
SESSION: Final = "/v1/session"
LOG: Final = "/v1/log"

_KEY: Final = Header(
    "Idempotency-Key",
    "Any text of your own, new for each new request. Within 24 hours the same request with the same key is not done "
    "again: its first answer comes back, with `Idempotency-Replayed: true`. Answers 429 and 5xx are not kept.",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
)
_PREFER: Final = Header(
    "Prefer", "`wait=20`: as `?wait=20`, which comes first (RFC 7240).", {"type": "string", "examples": ["wait=20"]}
)
_LAST_EVENT_ID: Final = Header(
    "Last-Event-ID", "The id of the last event that was got.", {"type": "string", "pattern": EVENT_ID_PATTERN}
)
_ONCE: Final = ("request-running", "key-reused")

_ANY: Final[dict[str, Any]] = {}
_BYTES: Final = {"type": "string", "format": "binary"}
_MESSAGE_BODY: Final = Body(
    "The message. JSON types are checked and kept as they are written; of other types the bytes and the type are kept.",
    {"application/json": _ANY, "text/plain": {"type": "string"}, "application/octet-stream": _BYTES},
    """--json '{"a": 1}'""",
)
_BATCH_BODY: Final = Body(
    "The messages: a JSON array, or NDJSON (also as application/jsonl) with one a line.",
    {"application/json": batches.Items, "application/x-ndjson": batches.Items},
    """--json '[{"body": 1}, {"body": 2, "delay": "5m"}]'""",
)
_SCHEDULE_BODY: Final = Body(
    "The schedule.",
    {"application/json": schedules.ScheduleBody},
    """--json '{"queue": "echo", "every": "30s", "body": {"a": 1}}'""",
)

_LEVEL_BODY: Final = Body("The level.", {"application/json": log.LogLevel}, """--json '{"level": "debug"}'""")

_ACCEPTED: Final = Answer("Redis has it.", Accepted)
_PAGE: Final = Answer("The page.", HTML)
_UNCHANGED: Final = Answer("It is as the client has it.")
_BACK: Final = {
    302: Answer("It was sent; back to the start page.", None, ("Location",)),
    503: Answer("Prefetched: nothing was sent, or Redis is away.", TEXT),
}

ROUTES: Final = (
    Route(
        "POST", MESSAGES, messages.send, "messages",
        {200: Answer("It has ended within the wait.", MessageView, ("Location",)), 202: _ACCEPTED},
        SendQuery, (_KEY, _PREFER), _MESSAGE_BODY,
        ("malformed-json", "needs-record", "not-unique", "queue-full", *_ONCE), "wait=5",
        access="send",
    ),
    Route(
        "POST", f"{MESSAGES}/batch", batches.send, "messages",
        {202: Answer("Redis has all of them.", AcceptedBatch)},
        NoQuery, (_KEY,), _BATCH_BODY,
        ("malformed-json", "malformed-batch", "needs-record", "queue-full", *_ONCE),
        access="send",
    ),
    Route(
        "GET", MESSAGES, messages.look, "messages",
        {200: Answer("A page of messages.", Page)}, PageQuery, problems=("bad-cursor",), example="state=dead&limit=10",
        access="read",
    ),
    Route(
        "DELETE", MESSAGES, messages.purge, "messages",
        {200: Answer("They are gone.", Deleted)}, PurgeQuery, example="state=dead",
        access="admin",
    ),
    Route(
        "GET", MESSAGE, messages.view, "messages",
        {
            200: Answer("The message; with a wait: it has ended.", MessageView),
            202: Answer("It has not ended within the wait.", MessageView, ("Location", "Retry-After")),
        },
        WaitQuery, (_PREFER,), problems=("no-such-message",), example="wait=20",
        access="read",
    ),
    Route(
        "DELETE", MESSAGE, messages.cancel, "messages",
        {200: Answer("It is cancelled, or being cancelled.", Cancelled)},
        NoQuery, problems=("no-such-message", "already-ended"),
        access="work",
    ),
    Route(
        "POST", f"{MESSAGE}/replay", messages.replay, "messages",
        {202: Answer("It is ready again.", Accepted, ("Location",))},
        NoQuery, problems=("no-such-message", "not-dead"),
        access="work",
    ),
    Route(
        "GET", QUEUES, queues.index, "queues", {200: Answer("The queues.", Queues)}, NoQuery,
        access="read", filters_queues=True,
    ),
    Route(
        "GET", f"{MESSAGE}/events", watching.message, "messages",
        {
            200: Answer(
                "What becomes of it.",
                Events({"state": MessageView, "progress": Progress, "gone": watching.Gone}),
            )
        },
        StreamQuery, problems=("no-such-message",), access="read",
    ),
    Route(
        "GET", QUEUE, queues.view, "queues",
        {200: Answer("The queue.", QueueView)}, NoQuery, problems=("no-such-queue",),
        access="read",
    ),
    Route(
        "DELETE", QUEUE, queues.delete, "queues",
        {200: Answer("It is gone, with so many messages.", Deleted)},
        NoQuery, problems=("no-such-queue", "queue-in-use"),
        access="admin",
    ),
    Route(
        "POST", f"{QUEUE}/replay", queues.replay, "queues",
        {202: Answer("They are ready, or scheduled at the rate.", Replayed)}, ReplayQuery,
        example="reason=failed&rate=10",
        access="admin",
    ),
    Route(
        "POST", f"{QUEUE}/pause", queues.pause, "queues", {200: Answer("It is paused.", Paused)}, NoQuery,
        access="admin",
    ),
    Route(
        "POST", f"{QUEUE}/resume", queues.resume, "queues", {200: Answer("It is not paused.", Paused)}, NoQuery,
        access="admin",
    ),
    Route(
        "POST", "/v1/channels/{channel}/messages", channels.publish, "channels",
        {202: Answer("It is published.", Published)}, NoQuery, (_KEY,), _MESSAGE_BODY, ("malformed-json", *_ONCE),
        access="send",
    ),
    Route(
        "GET", SCHEDULES, schedules.index, "schedules", {200: Answer("The schedules.", Schedules)}, NoQuery,
        access="read", filters_queues=True,
    ),
    Route(
        "GET", f"{QUEUE}/stats", stats.queue, "queues",
        {200: Answer("What happened.", Stats)}, StatsQuery, problems=("no-such-queue",), example="range=1h",
        access="read",
    ),
    Route(
        "GET", f"{QUEUE}/events", watching.queue, "queues",
        {200: Answer("What becomes of its messages.", Events({"state": StateEvent, "skipped": Skipped}))},
        StreamQuery, example="limit=10", access="read",
    ),
    Route(
        "GET", "/v1/stats", stats.index, "service", {200: Answer("What happened.", Stats)}, StatsQuery, access="read",
    ),
    Route(
        "GET", "/v1/processes", live.processes, "service", {200: Answer("The processes.", Processes)}, NoQuery,
        access="read",
    ),
    Route(
        "GET", "/v1/events", live.events, "service",
        {200: Answer("The numbers, as they come.", Events({"numbers": Numbers, "outage": Outage}))},
        StreamQuery, example="limit=3", access="read",
    ),
    Route(
        "GET", "/v1/channels/{pattern}/events", channels.events, "channels",
        {200: Answer("The messages, as they come.", Events({"message": ChannelMessage, "gap": Gap}))},
        ResumeQuery, (_LAST_EVENT_ID,), example="limit=10", access="read",
    ),
    Route(
        "GET", SCHEDULE, schedules.view, "schedules",
        {200: Answer("The schedule.", ScheduleView)}, NoQuery, problems=("no-such-schedule",),
        access="read", filters_queues=True,
    ),
    Route(
        "PUT", SCHEDULE, schedules.put, "schedules",
        {
            200: Answer("It has replaced another.", ScheduleView),
            201: Answer("It is new.", ScheduleView, ("Location",)),
        },
        NoQuery, (), _SCHEDULE_BODY, ("malformed-json", "invalid-schedule", "no-such-schedule"),
        access="admin", filters_queues=True,
    ),
    Route(
        "DELETE", SCHEDULE, schedules.delete, "schedules",
        {204: Answer("It is gone.")}, NoQuery, problems=("no-such-schedule",),
        access="admin", filters_queues=True,
    ),
    Route(
        "GET", SESSION, session.view, "session", {200: Answer("The caller.", Session)}, NoQuery,
        access="token", filters_queues=True,
    ),
    Route(
        "POST", SESSION, session.create, "session", {200: Answer("It is open; its cookie is set.", Session)}, NoQuery,
        access="token", filters_queues=True,
    ),
    Route("DELETE", SESSION, session.delete, "session", {204: Answer("It is closed.")}, NoQuery, access="open"),
    Route(
        "GET", "/metrics", metrics.metrics, "service", {200: Answer("The metrics.", TEXT)}, MetricsQuery,
        problems=("unavailable", "misconfigured"), example="scope=all", access="read",
    ),
    Route(
        "GET", LOG, log.view, "service", {200: Answer("The level.", log.LogLevel)}, NoQuery, access="read",
    ),
    Route(
        "PUT", LOG, log.put, "service", {200: Answer("The level now.", log.LogLevel)},
        NoQuery, (), _LEVEL_BODY, ("malformed-json", "invalid-level"),
        access="admin",
    ),
    Route(
        "GET", "/livez", health.livez, "service",
        {
            200: Answer("It lives.", TEXT),
            503: Answer("A consumer is stuck: restart it.", TEXT, ("Retry-After",)),
        },
        access="probe",
    ),
    Route(
        "GET", "/readyz", health.readyz, "service",
        {
            200: Answer("It takes messages.", TEXT),
            503: Answer("It starts, drains or has failed.", TEXT, ("Retry-After",)),
        },
        access="probe",
    ),
    Route("GET", "/openapi.json", openapi.openapi, "service", {200: Answer("OpenAPI 3.1.", _ANY)}, access="open"),
    Route("GET", "/docs", docs.index, "service", {200: _PAGE}, access="open"),
    Route("GET", "/problems", docs.problems, "service", {200: _PAGE}, access="open"),
    Route("GET", "/problems/{code}", docs.problem, "service", {200: _PAGE}, problems=("not-found",), access="open"),
    Route("GET", "/dashboard", pages.dashboard, "service", {200: _PAGE, 304: _UNCHANGED}, access="open"),
    Route(
        "GET", "/static/{file:.+}", assets.static, "service",
        {200: Answer("The file.", "*/*"), 304: _UNCHANGED}, problems=("not-found",), access="open",
    ),
    Route("GET", "/", pages.index, "tutorial", {200: _PAGE}, access="open"),
    Route("HEAD", "/", pages.index, "tutorial", {200: Answer("As GET, without the page.")}, access="open"),
    Route("GET", "/prodcons", pages.prodcons, "tutorial", _BACK, access="send", filters_queues=True),
    Route("HEAD", "/prodcons", pages.prodcons, "tutorial", _BACK, access="send", filters_queues=True),
    Route("GET", "/pubsub", pages.pubsub, "tutorial", _BACK, access="send"),
    Route("HEAD", "/pubsub", pages.pubsub, "tutorial", _BACK, access="send"),
)  # fmt: skip
