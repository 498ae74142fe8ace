"""What travels: a message as its handler sees it, and the records between broker, consumer and executor.

Plain data; no Redis, no HTTP. What is made for every message is a struct that the garbage collector does not know
(`gc=False`; none can be part of a cycle): 0.1 µs each where a named tuple takes 0.2 to 0.9, and no collection falls due
while a few hundred are held.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from mqservice import jsontext
from mqservice.errors import MqError

JSON = msgspec.json.Encoder()
"""The one JSON encoder: bodies, results, error records."""


class Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes with a body, stored as JSON; nothing is stored when all is default."""

    headers: dict[str, str] = {}
    content_type: str = ""
    """Empty: JSON, or a raw body of unknown type."""
    attempts: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Overrides the handler's budget of attempts."""
    retry_s: Annotated[float, msgspec.Meta(ge=0, le=31_536_000)] | None = None
    """Overrides the wait after the first failed attempt."""


NO_META = Meta()
_META = msgspec.json.Decoder(Meta)


def decode_meta(stored: bytes | None) -> Meta:
    """Return what a record says under `meta`; the defaults when it says nothing, or somebody else wrote it."""
    try:
        return _META.decode(stored) if stored else NO_META
    except jsontext.FAULTS:
        return NO_META  # the body still counts


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message to be sent."""

    id: str
    body: bytes
    meta: Meta = NO_META
    delay_ms: int = 0
    at_ms: int = 0
    """Epoch ms by the clock of Redis; 0: use delay_ms."""
    ttl_ms: int = 0
    unique: str = ""
    """At most one unfinished message of a queue has this key."""
    watch: str = ""
    """Redis channel on which to tell that the message has ended."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Proof of holding a lease. Stale once that has ended, or anybody else was given the message."""

    id: str
    claim: str
    """The token of the claim that took it, 16 hex digits: no two leases share one, not even of two messages that had
    the same id one after the other."""


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A message as claimed, with its lease."""

    receipt: Receipt
    body: bytes
    meta: Meta
    attempts: int
    """Failed attempts so far; this delivery is attempt `attempts + 1`."""
    crashes: int
    sent_ms: int
    claimed_ms: int = 0
    """When this delivery began. As all times of messages by the clock of Redis, in epoch ms."""


class Attempt(msgspec.Struct, frozen=True):
    """One failed run of a handler, as kept in the message's history. The times are 0 when it did not run."""

    type: str
    text: str
    at_ms: int = 0
    took_ms: int = 0
    traceback: str = ""
    by: str = ""


class Done(msgspec.Struct, frozen=True, gc=False):
    """The handler returned; `result` is JSON."""

    result: bytes


class RetryIn(NamedTuple):
    """The attempt failed or asked for another; try again later."""

    delay_ms: int
    attempt: Attempt


class Dead(NamedTuple):
    """Do not try again. `reason` is failed, rejected or undecodable."""

    reason: str
    attempt: Attempt


class Release(NamedTuple):
    """Give the message back, no attempt used."""


class Cancelled(NamedTuple):
    """Somebody cancelled the message while it was active."""


Outcome: TypeAlias = Done | RetryIn | Dead | Release | Cancelled


class Message:
    """What a handler or subscriber may know of the message besides its body.

    `queue` is the queue's name, or the channel's for a subscriber. `attempt` counts from 1. `sent_at_ms` is the
    wall clock of Redis.
    """

    __slots__ = ("_report", "attempt", "headers", "id", "queue", "sent_at_ms")

    def __init__(
        self,
        id: str,  # noqa: A002 - the word of the API
        queue: str,
        headers: dict[str, str] | None = None,
        attempt: int = 1,
        sent_at_ms: int = 0,
        report: Callable[[float, str], Awaitable[object]] | None = None,
    ) -> None:
        self.id = id
        self.queue = queue
        self.headers = headers or {}
        self.attempt = attempt
        self.sent_at_ms = sent_at_ms
        self._report = report

    def __repr__(self) -> str:
        return f"Message(id={self.id!r}, queue={self.queue!r}, attempt={self.attempt})"

    async def progress(self, fraction: float, text: str = "") -> None:
        """Tell whoever looks at the message how far it is: 0.0 to 1.0, and a word. 1 round trip."""
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction {fraction!r} is not between 0 and 1")
        if self._report is not None:
            await self._report(fraction, text)


class UnsendableBody(MqError):
    """The body is nothing that JSON can hold."""

    code = "unsendable-body"


def encode_body(body: Any) -> bytes:
    """Return the bytes that travel: bytes as they are, anything else as JSON. Raise UnsendableBody."""
    if isinstance(body, bytes):
        return body
    try:
        return JSON.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsendableBody(f"body of type {type(body).__name__} is not JSON: {error}") from None
