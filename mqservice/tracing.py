"""What runs now: the message whose handler is at work, and the trace (W3C Trace Context) that it belongs to.

Set by the executor, read where it is told (log lines) or handed on (messages that a handler sends). Spans of
OpenTelemetry, where a program has set it up, are made by `spans`.
"""

import hashlib
import re
import sys
from contextvars import ContextVar
from typing import Final, NamedTuple

from mqservice.message import Claimed

HEADER: Final = "traceparent"
"""The header of a message, and of the HTTP request that sends it."""

_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Trace(NamedTuple):
    """A place in a trace: 32, 16 and 2 hex digits."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def traceparent(self) -> str:
        """The header for what comes of it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


QUEUE: Final[ContextVar[str]] = ContextVar("mqservice_queue", default="")
"""The queue of which a consumer's tasks take messages; set once by each consumer."""

RUNNING: Final[ContextVar[Claimed | None]] = ContextVar("mqservice_running", default=None)
"""The message at work. Set for each and read for few, so all that is said of it is found out when it is asked for."""


def is_traceparent(text: str) -> bool:
    """Tell whether a header can be used: neither malformed, nor all zeros, nor of version ff."""
    return _FORM.fullmatch(text) is not None


def of_run(claimed: Claimed) -> Trace | None:
    """Return the span of a handler's run, below the one that sent the message; None when it carries no trace.

    The span follows from the receipt: it is the same whenever it is asked for, and another for each delivery.
    """
    found = _FORM.fullmatch(claimed.meta.headers.get(HEADER, ""))
    if found is None:
        return None
    span = hashlib.blake2b(f"{claimed.receipt.id}{claimed.receipt.claim}".encode(), digest_size=8).hexdigest()
    return Trace(found[1], span, found[3])


def current() -> Trace | None:
    """Return the span that we are in: one of OpenTelemetry's where there is one, else that of the handler's run."""
    otel, context = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.context")
    if otel is not None and context is not None and context.get_current():  # empty nearly always, and quickly asked
        span = otel.get_current_span().get_span_context()
        if span.is_valid:
            return Trace(f"{span.trace_id:032x}", f"{span.span_id:016x}", f"{span.trace_flags:02x}")
    running = RUNNING.get()
    return of_run(running) if running is not None else None


def wants_spans() -> bool:
    """Tell whether the program has set a tracer provider of OpenTelemetry. What nobody has imported is not either."""
    otel = sys.modules.get("opentelemetry.trace")
    if otel is None:
        return False
    return not isinstance(otel.get_tracer_provider(), (otel.ProxyTracerProvider, otel.NoOpTracerProvider))
