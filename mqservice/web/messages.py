"""The messages of a queue: send, look, purge; and one message: look, cancel, replay."""

import time
from typing import Final, cast

from aiohttp import web
from msgspec import UNSET

from mqservice import keys
from mqservice.broker import Broker, new_id
from mqservice.errors import MqError
from mqservice.message import JSON, NO_META, Meta, Outgoing
from mqservice.message_view import State
from mqservice.tracing import HEADER, is_traceparent
from mqservice.web.access import demand
from mqservice.web.acknowledgement import Acknowledgement, is_plain
from mqservice.web.answers import Accepted, Cancelled, Deleted, answer, message_path
from mqservice.web.body import Content, content_at_hand, read_content
from mqservice.web.context import CONTEXT
from mqservice.web.idempotent import once
from mqservice.web.parameters import YEAR_S, PageQuery, PurgeQuery, SendQuery, WaitQuery, plain
from mqservice.web.problems import Refusal
from mqservice.web.waiting import RETRY_AFTER, WAITS, has_ended, wait_s

_RESERVED: Final = "batch"
"""No id: `messages/batch` is where batches go."""


async def send(request: web.Request, query: SendQuery) -> web.StreamResponse:
    """Send a message. The body is the message: JSON stays JSON, anything else is bytes with its content type.

    Answers once Redis has it. With `?wait=` or `Prefer: wait=` it answers 200 with the message as soon as that has
    ended, with its result or error, and a token needs the scope `read` as well; if that takes longer, 202 as without.
    `curl -d` says form data of anything: it is taken as JSON when it is, else as text.
    """
    content = content_at_hand(request) or await read_content(request)
    broker = request.app[CONTEXT].broker(request.match_info["queue"])
    if broker.queue.delivery == "at-most-once":
        return await once(request, [content.body], lambda _: _push(broker, query, content))
    if query is plain(SendQuery) and is_plain(request):
        return await _send_plainly(request, broker, query, content)
    return await once(request, [content.body], lambda new_id: _send(request, broker, query, content, new_id()))


async def look(request: web.Request, query: PageQuery) -> web.Response:
    """Look at messages in one state, and take none.

    Ready, scheduled and active ones come by who is next, the others newest first. A raw body that nobody has claimed
    yet has no id.
    """
    views = request.app[CONTEXT].views(request.match_info["queue"])
    return answer(await views.page(query.state, query.limit, None if query.cursor is UNSET else query.cursor))


async def purge(request: web.Request, query: PurgeQuery) -> web.Response:
    """Delete all messages that are in one state now. Those that are active must be cancelled."""
    operations = request.app[CONTEXT].operations(request.match_info["queue"])
    return answer(Deleted(await operations.purge(query.state)))


async def view(request: web.Request, query: WaitQuery) -> web.Response:
    """Show a message: its state, result, progress, and failed attempts with errors and times.

    With `?wait=` or `Prefer: wait=` the answer comes as soon as the message has ended; if that takes longer, it is 202
    with the message as it is.
    """
    queue, message_id = request.match_info["queue"], request.match_info["id"]
    patience_s = wait_s(request, query.wait)
    if patience_s:
        options = request.app[CONTEXT].broker(queue).queue
        found = await request.app[WAITS].ended(request, options, message_id, patience_s)
    else:
        found = await request.app[CONTEXT].views(queue).message(message_id)
    if found is None:
        raise _unknown(queue, message_id)
    if patience_s and not has_ended(found):
        return answer(found, 202, {"Location": message_path(queue, message_id), **RETRY_AFTER})
    return answer(found)


async def cancel(request: web.Request) -> web.Response:
    """Cancel a message: ready or scheduled at once; active by cancelling its coroutine, wherever it runs."""
    queue, message_id = request.match_info["queue"], request.match_info["id"]
    state = await request.app[CONTEXT].operations(queue).cancel(message_id)
    match state:
        case "cancelled" | "cancelling":
            return answer(Cancelled(message_id, state))
        case None:
            raise _unknown(queue, message_id)
    raise Refusal("already-ended", f"message {message_id} is {state}", state=state)


async def replay(request: web.Request) -> web.Response:
    """Replay a dead message: it is ready again, with new budgets, its id and its history."""
    queue, message_id = request.match_info["queue"], request.match_info["id"]
    state = await request.app[CONTEXT].operations(queue).replay(message_id)
    if state == "replayed":
        return answer(Accepted(message_id, "ready"), 202, {"Location": message_path(queue, message_id)})
    if state is None:
        raise _unknown(queue, message_id)
    raise Refusal("not-dead", f"message {message_id} is {state}", state=state)


async def _send_plainly(request: web.Request, broker: Broker, query: SendQuery, content: Content) -> web.StreamResponse:
    """Send without a wish, as nearly everybody does."""
    queue = broker.queue.name
    message_id = new_id()
    state = await broker.send(Outgoing(message_id, content.body, _meta(request, query, content)))
    if state == "full":
        raise await full(broker)
    return Acknowledgement(message_path(queue, message_id), JSON.encode(_as_accepted(message_id, state)))


async def _send(request: web.Request, broker: Broker, query: SendQuery, content: Content, new_id: str) -> web.Response:
    queue = broker.queue.name
    patience_s = wait_s(request, query.wait)
    if patience_s:
        demand(request, "read")  # with the id of another's message it would show that one
    watch = request.app[CONTEXT].waiters.channel if patience_s else ""
    message = _outgoing(request, query, content, new_id, watch)
    state = await broker.send(message)
    if state == "full":
        raise await full(broker)
    if state.startswith("!"):
        other = message_path(queue, state[1:])
        raise Refusal("not-unique", f"message {state[1:]} has this unique key", {"Location": other})
    if patience_s:
        return await _ended(request, broker, message.id, state, patience_s)
    return _accepted(queue, message.id, state)


async def _ended(request: web.Request, broker: Broker, message_id: str, state: str, patience_s: float) -> web.Response:
    try:
        found = await request.app[WAITS].ended(request, broker.queue, message_id, patience_s)
    except MqError:  # the message was sent, so the answer must be 202
        found = None
    if found is not None and has_ended(found):
        return answer(found, headers={"Location": message_path(broker.queue.name, message_id)})
    response = _accepted(broker.queue.name, message_id, found.state if found else state)
    response.headers.update(RETRY_AFTER)
    return response


async def _push(broker: Broker, query: SendQuery, content: Content) -> web.Response:
    if query != SendQuery():
        raise Refusal("needs-record", f"queue {broker.queue.name} delivers at most once: no option can be kept")
    await broker.push(content.body)
    return answer(Accepted(None, "ready"), 202)


def _accepted(queue: str, message_id: str, state: str) -> web.Response:
    return answer(_as_accepted(message_id, state), 202, {"Location": message_path(queue, message_id)})


def _as_accepted(message_id: str, state: str) -> Accepted:
    """A state with `=` is that of an id that existed: the sender's, or ours, sent again after its reply was lost."""
    return Accepted(message_id, cast("State", state.removeprefix("=")))


def _outgoing(request: web.Request, query: SendQuery, content: Content, new_id: str, watch: str) -> Outgoing:
    return Outgoing(
        id=new_id if query.id is UNSET else chosen_id(query.id),
        body=content.body,
        meta=_meta(request, query, content),
        delay_ms=0 if query.delay is UNSET else query.delay.ms,
        at_ms=_at_ms(query),
        ttl_ms=0 if query.ttl is UNSET else query.ttl.ms,
        unique="" if query.unique is UNSET else keys.valid_name(query.unique, "unique key"),
        watch=watch,
    )


def chosen_id(message_id: str) -> str:
    """Return the id that a sender chose. Raises InvalidName, Refusal."""
    if message_id == _RESERVED:
        raise Refusal("invalid-name", f"the id {_RESERVED!r} is the name of a route")
    return keys.valid_name(message_id, "id")


async def full(broker: Broker) -> Refusal:
    """Return the refusal of a full queue."""
    detail = f"queue {broker.queue.name} has reached its max_length of {broker.queue.max_length}"
    return Refusal("queue-full", detail, {"Retry-After": str(await broker.retry_after_s())})


def trace_headers(request: web.Request) -> dict[str, str]:
    """Return what a message takes over from the request that sends it: its trace, where it has one."""
    trace = request.headers.get(HEADER, "")
    return {HEADER: trace} if trace and is_traceparent(trace) else {}


def _meta(request: web.Request, query: SendQuery, content: Content) -> Meta:
    headers = trace_headers(request)
    attempts = None if query.attempts is UNSET else query.attempts
    retry_s = None if query.retry is UNSET else query.retry.ms / 1000
    if headers or content.type or attempts is not None or retry_s is not None:
        return Meta(headers=headers, content_type=content.type, attempts=attempts, retry_s=retry_s)
    return NO_META


def _at_ms(query: SendQuery) -> int:
    if query.at is UNSET:
        return 0
    if query.delay is not UNSET:
        raise Refusal("invalid-parameter", "query parameters `delay` and `at` exclude each other")
    if query.at.epoch_ms > (time.time() + YEAR_S) * 1000:
        raise Refusal("invalid-parameter", "query parameter `at` is more than a year away")
    return query.at.epoch_ms


def _unknown(queue: str, message_id: str) -> Refusal:
    return Refusal("no-such-message", f"queue {queue} has no message {message_id}")
