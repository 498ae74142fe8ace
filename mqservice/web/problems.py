"""Errors as RFC 9457 problems: one table of stable codes, from which answers, the API's description and pages come."""

from typing import Any, Final, NamedTuple

from aiohttp import web
from msgspec import Struct

from mqservice.message import JSON


class Kind(NamedTuple):
    """A kind of problem. Its `type` in an answer is `/problems/<code>`, where a page shows this."""

    status: int
    title: str
    meaning: str
    remedy: str


class Problem(Struct, frozen=True):
    """Why a request was refused, after RFC 9457. Some kinds add members of their own."""

    type: str
    title: str
    status: int
    detail: str


PROBLEMS: Final[dict[str, Kind]] = {
    "invalid-parameter": Kind(
        400,
        "A query parameter or header cannot be used",
        "A query parameter is unknown, given twice or unfit, or a header that matters here is. Unknown ones are "
        "refused because a misspelt `?dealy=60` would otherwise send at once.",
        "The detail names the parameter. /docs lists those of every route.",
    ),
    "invalid-name": Kind(
        400,
        "Not a name",
        "Queues, channels, schedules and message ids are 1 to 128 of A-Z a-z 0-9 . _ : -",
        "Choose another name; percent-encoding does not help.",
    ),
    "malformed-json": Kind(
        400,
        "The body is not JSON",
        "The content type says JSON, or there is none, and the body is not: malformed, not UTF-8, NaN or Infinity, "
        "a number out of range, or nested too deeply. Nothing was kept.",
        "The detail says where. To send other data, say so: -H 'Content-Type: text/plain'.",
    ),
    "malformed-batch": Kind(
        400,
        "A message of the batch cannot be used",
        'Each is {"body": …} with an optional id, delay, ttl and attempts, one a line in NDJSON. A batch is all or '
        "nothing: none of it was kept.",
        "The member `index` says which, counted from 0; in NDJSON `line` the line, from 1. `curl -d @file` takes "
        "out the line feeds: use `curl --data-binary @file`.",
    ),
    "invalid-schedule": Kind(
        400,
        "Not a schedule",
        "It needs a queue and exactly one of cron and every; the time zone, if any, is one of IANA's.",
        "The detail names the key, its value and what is expected.",
    ),
    "invalid-level": Kind(
        400,
        "Not a log level",
        "The level is one of debug, info, warning and error.",
        """Send {"level": "debug"}, or another of the four.""",
    ),
    "needs-record": Kind(
        400,
        "This queue keeps no records",
        "A queue with delivery at-most-once holds bare bodies: no id, delay, ttl, unique key, batch or result.",
        "Send without these options, or make the queue at-least-once.",
    ),
    "bad-cursor": Kind(
        400,
        "Not a cursor",
        "A page was asked for by a cursor that no page gave out.",
        "Take the cursor from the page before, or leave it out for the first.",
    ),
    "malformed-request": Kind(
        400, "Not HTTP", "The request breaks the rules of HTTP itself.", "Use a real HTTP client."
    ),
    "unauthorized": Kind(
        401,
        "Who are you?",
        "A token is needed, and the request shows none that is known here, nor a session that has not ended.",
        "Send the header `Authorization: Bearer <secret>`. Whoever runs the service makes a token with "
        "`mqservice token NAME` and adds it to config.toml.",
    ),
    "forbidden": Kind(
        403,
        "This token may not",
        "The token is known, but it lacks the scope that the route needs, or it is restricted to other queues.",
        "/docs names the scope of every route, GET /v1/session what the token may. Use another token, or change this "
        "one in config.toml.",
    ),
    "cross-site": Kind(
        403,
        "Asked by a foreign page",
        "A page of another origin made the browser ask (Sec-Fetch-Site, Origin). Such a request may send or change "
        "nothing, whatever it shows.",
        "Ask from a page of the service, or without a browser. Where a proxy changes Host, add the public name to "
        "http.hosts.",
    ),
    "not-found": Kind(404, "No such page", "No route has this path.", "/docs lists all of them."),
    "no-such-queue": Kind(
        404,
        "No such queue",
        "Nobody has served this queue or sent to it yet.",
        "Look at /v1/queues. Sending to a queue makes it.",
    ),
    "no-such-message": Kind(
        404,
        "No such message",
        "The queue holds no message with this id: there never was one, or it has ended and its time is over, or it "
        "was purged.",
        "Compare queue and id with the Location of the answer to the send.",
    ),
    "no-such-schedule": Kind(404, "No such schedule", "There is no schedule of this name.", "Look at /v1/schedules."),
    "method-not-allowed": Kind(
        405, "Not with this method", "The path exists, for other methods.", "The header Allow names them."
    ),
    "body-timeout": Kind(
        408,
        "The body took too long",
        "The body did not arrive within http.body_deadline_s. Nothing was kept.",
        "Send it again over a faster line, or in smaller parts.",
    ),
    "already-ended": Kind(
        409,
        "The message has ended",
        "A message that is done or dead cannot be cancelled.",
        "Nothing: the member `state` says what became of it.",
    ),
    "not-dead": Kind(
        409,
        "The message is not dead",
        "Only a dead message can be replayed.",
        "Nothing: the member `state` says where it is. To run it once more, send it again with another id.",
    ),
    "not-unique": Kind(
        409,
        "Such a message is not finished yet",
        "An unfinished message of the queue has the same unique key. Nothing was kept.",
        "Follow Location to that message. When it has ended, the key is free.",
    ),
    "queue-in-use": Kind(
        409,
        "The queue is in use",
        "A queue that has consumers or active messages cannot be deleted. What was neither stays as it was.",
        "Stop its consumers; 15 s after the last was heard of it can be deleted.",
    ),
    "request-running": Kind(
        409,
        "The first request is not answered yet",
        "A request with this Idempotency-Key is being worked on.",
        "Ask again after Retry-After: then the stored answer comes.",
    ),
    "wrong-type": Kind(
        409,
        "A key of the queue holds something else",
        "Somebody has put a value of another type where the queue keeps its own, such as a string in place of its "
        "list. Nothing was kept.",
        "The detail is what Redis says. Rename or delete that key in Redis.",
    ),
    "body-too-large": Kind(
        413,
        "The body is too large",
        "It is over http.body_limit, or the batch over 16 MiB or 10,000 messages. Nothing was kept.",
        "Send less at once, or keep the data elsewhere and send where it is.",
    ),
    "unsupported-type": Kind(
        415,
        "Not this content type",
        "The route reads other types than the request's Content-Type, or that header is not one.",
        "/docs names those it reads.",
    ),
    "unsupported-encoding": Kind(
        415,
        "No compressed bodies",
        "The request has a Content-Encoding. A few compressed bytes may be gigabytes, so none are inflated.",
        "Send it as it is.",
    ),
    "expectation-failed": Kind(
        417, "Unknown expectation", "The header Expect holds something else than 100-continue.", "Leave it out."
    ),
    "misdirected": Kind(
        421,
        "Another host was meant",
        "The header Host names a host that this service does not know to be itself. A page whose name was bent to "
        "our address (DNS rebinding) looks like that.",
        "If the name is ours, add it to http.hosts in config.toml. Addresses and localhost always work.",
    ),
    "key-reused": Kind(
        422,
        "The Idempotency-Key belongs to another request",
        "The key was used within 24 hours with another path, query or body.",
        "Take a new key for each new request; the same only to repeat one.",
    ),
    "queue-full": Kind(
        429,
        "The queue is full",
        "It has reached its max_length of ready messages. Nothing was kept.",
        "Try again after Retry-After, which is computed from how fast the queue is drained.",
    ),
    "rate-limited": Kind(
        429,
        "Too many requests",
        "The token, or the address where there is none, has made more requests than http.rate_per_s and "
        "http.rate_burst allow. Nothing was kept.",
        "Try again after Retry-After. A batch is one request.",
    ),
    "too-much-at-once": Kind(
        429,
        "Too many large bodies at once",
        "Bodies over 64 KiB are received up to 256 MiB at the same time. Nothing was kept.",
        "Try again after Retry-After.",
    ),
    "internal": Kind(
        500,
        "A fault of the service",
        "Something went wrong that nobody foresaw.",
        "Look into the service's log for the X-Request-Id of the answer, and report it.",
    ),
    "unavailable": Kind(
        503,
        "Redis is away",
        "Redis did not answer in time, is read-only or is loading. A message sent with an id or an Idempotency-Key "
        "can be sent again without harm: it cannot double.",
        "Try again after Retry-After.",
    ),
    "misconfigured": Kind(
        503,
        "Redis refuses the service",
        "The password of the service is wrong, or its Redis user lacks a right. Nothing was kept.",
        "Whoever runs Redis must mend it; then try again.",
    ),
    "out-of-memory": Kind(
        503,
        "Redis is full",
        "Redis has reached its maxmemory. What is queued is safe and drains; nothing new was kept.",
        "Try again after Retry-After; give Redis more memory, or the queue more consumers.",
    ),
}
"""Code → kind. A code is for ever."""

_BODY_UNREAD: Final = frozenset({408, 413, 415})
"""What is left of the body would be taken for the next request."""


class Refusal(Exception):
    """A request that cannot be done; raised by handlers, answered as a problem at the edge."""

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers, self.members = code, detail, headers, members

    def response(self) -> web.Response:
        """Return the problem document."""
        return problem(self.code, self.detail, self.headers, **self.members)


def problem(code: str, detail: str, headers: dict[str, str] | None = None, **members: Any) -> web.Response:
    """Return a problem document. `members` are added to those that every problem has."""
    kind = PROBLEMS[code]
    document = {"type": f"/problems/{code}", "title": kind.title, "status": kind.status, "detail": detail, **members}
    response = web.Response(
        body=JSON.encode(document), status=kind.status, content_type="application/problem+json", headers=headers
    )
    if kind.status in _BODY_UNREAD:
        response.force_close()
    return response
