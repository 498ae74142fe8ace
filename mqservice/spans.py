"""Spans of OpenTelemetry, after its conventions for messaging: one for each send, one for each run of a handler.

Needs the extra `otel`, and is on when the program has set a tracer provider before the service starts, as
`opentelemetry-instrument mqservice serve` or the module of `service.app` does: else nothing of this is even imported.
The span of a run is a child of the send's, and linked to it. No span for a claim, or for one that found nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mqservice.broker import Broker
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.executor import Execution
from mqservice.message import Claimed, Dead, Outcome, Outgoing, RetryIn
from mqservice.retry import Retry

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class TracedBroker(Broker):
    """A broker whose sends are spans, which the messages carry along in their headers."""

    def __init__(self, connections: Connections, queue: QueueOptions, *more: Any) -> None:
        super().__init__(connections, queue, *more)
        self._tracer = trace.get_tracer("mqservice")

    async def send(self, message: Outgoing) -> str:
        """Send one message, see `Broker.send`. Its span is a child of the one that its headers name."""
        headers = message.meta.headers
        with self._sending(headers, {"messaging.message.id": message.id}) as span:
            state = await super().send(_carrying(span, [message])[0])
            _tell_state(span, [state])
            return state

    async def send_many(self, messages: Sequence[Outgoing]) -> list[str]:
        """Send messages as one, see `Broker.send_many`. They share a span."""
        headers = messages[0].meta.headers if messages else {}
        with self._sending(headers, {"messaging.batch.message_count": len(messages)}) as span:
            states = await super().send_many(_carrying(span, messages))
            _tell_state(span, states)
            return states

    async def send_plain(self, ids: Sequence[str], bodies: Sequence[bytes]) -> list[str]:
        """Send messages as one, see `Broker.send_plain`: they are plain no more, since they carry the span along."""
        return await self.send_many([Outgoing(*one) for one in zip(ids, bodies, strict=True)])

    async def push(self, body: bytes) -> int:
        """Push a raw body, see `Broker.push`. It can carry nothing along."""
        with self._sending({}, {}):
            return await super().push(body)

    async def push_many(self, bodies: Sequence[bytes]) -> int:
        """Push raw bodies, see `Broker.push_many`."""
        with self._sending({}, {"messaging.batch.message_count": len(bodies)}):
            return await super().push_many(bodies)

    @contextmanager
    def _sending(self, headers: Mapping[str, str], more: Mapping[str, str | int]) -> Iterator[Span]:
        name = self.queue.name
        attributes = {**_attributes("send", name), **more}
        parent = _parent(headers)
        span = self._tracer.start_span(f"send {name}", parent, SpanKind.PRODUCER, attributes)
        try:
            yield span
        except Exception as error:
            _tell_error(span, type(error).__name__, str(error))
            raise
        finally:
            span.end()


def traced(execution: Execution) -> Callable[[Claimed], Awaitable[Outcome]]:
    """Return what runs a claimed message as `execution.run` does, in a span."""
    tracer = trace.get_tracer("mqservice")
    name = execution.queue.name
    fixed = _attributes("process", name)

    async def run(claimed: Claimed) -> Outcome:
        attributes = {**fixed, "messaging.message.id": claimed.receipt.id, "mqservice.attempt": claimed.attempts + 1}
        sent = _PROPAGATOR.extract(claimed.meta.headers, Context())
        producer = trace.get_current_span(sent).get_span_context()
        links = [Link(producer)] if producer.is_valid else None
        span = tracer.start_span(f"process {name}", sent, SpanKind.CONSUMER, attributes, links)
        token = context.attach(trace.set_span_in_context(span, sent))
        try:
            outcome = await execution.run(claimed)
        except asyncio.CancelledError:
            span.set_attribute("mqservice.outcome", "cancelled")
            raise
        else:
            _tell_outcome(span, outcome)
            return outcome
        finally:
            context.detach(token)
            span.end()

    return run


def _attributes(operation: str, queue: str) -> dict[str, str | int]:
    return {
        "messaging.system": "mqservice",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": queue,
    }


def _parent(headers: Mapping[str, str]) -> Context:
    """Return what a send is part of: what its headers say, or where we are when that is in the same trace."""
    here = context.get_current()
    said = _PROPAGATOR.extract(headers, Context())
    named, ours = (trace.get_current_span(each).get_span_context() for each in (said, here))
    return said if named.is_valid and named.trace_id != ours.trace_id else here


def _carrying(span: Span, messages: Sequence[Outgoing]) -> list[Outgoing]:
    """Return the messages with the span in their headers."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    metas: dict[int, Any] = {}
    carrying = []
    for message in messages:
        meta = message.meta
        if id(meta) not in metas:
            metas[id(meta)] = msgspec.structs.replace(meta, headers={**meta.headers, **carrier})
        carrying.append(msgspec.structs.replace(message, meta=metas[id(meta)]))
    return carrying


def _tell_state(span: Span, states: Sequence[str]) -> None:
    refused = next((state for state in states if state == "full" or state.startswith("!")), None)
    if refused is not None:
        _tell_error(span, "queue-full" if refused == "full" else "not-unique", "")


def _tell_outcome(span: Span, outcome: Outcome) -> None:
    span.set_attribute("mqservice.outcome", type(outcome).__name__.lower())
    if not isinstance(outcome, (RetryIn, Dead)) or outcome.attempt.type == Retry.__name__:
        return  # a wish for another try is no error
    attempt = outcome.attempt
    _tell_error(span, attempt.type, attempt.text)
    exception = {"type": attempt.type, "message": attempt.text, "stacktrace": attempt.traceback}
    span.add_event("exception", {f"exception.{key}": value for key, value in exception.items() if value})


def _tell_error(span: Span, kind: str, text: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, text)
