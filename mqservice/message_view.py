"""A message as people see it, made of the fields of its record. Plain data; read by `views`, sent by the web.

Whatever a stranger has written into Redis can be looked at: what does not fit is shown as 0, as text or not at all.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, cast, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mqservice import jsontext
from mqservice.message import Attempt, decode_meta
from mqservice.records import attempt, attempts, fraction, moment, number, text, value

State = Literal["ready", "scheduled", "active", "done", "dead", "cancelled"]

FIELDS: Final = (
    *("state", "purged", "meta", "body", "result", "error", "reason", "progress", "history", "attempts", "crashes"),
    *("lease", "sent", "due", "finished", "expires"),
)
"""Of a record, all but its blob, which may be of any size."""

_STATES: Final = frozenset(get_args(State))
_NULL: Final = Raw(b"null")


class Progress(Struct, frozen=True):
    """How far the handler says it is: 0 to 1, and a word."""

    fraction: float
    text: str
    at_ms: int


class MessageView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as its record has it. Times are RFC 3339, UTC."""

    id: str
    queue: str
    state: State
    body_json: Raw = msgspec.field(name="body")
    """JSON when it is JSON, else text, else {"base64": ...}; null when it is too large to be shown."""
    body_bytes: int | UnsetType = UNSET
    """The size of a body over 2 MiB, which is not shown."""
    content_type: str = ""
    headers: dict[str, str] = {}
    result_json: Raw | UnsetType = msgspec.field(default=UNSET, name="result")
    error: Attempt | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    """The last ten failed ones, oldest first."""
    attempts_used: int = 0
    crashes: int = 0
    deliveries: int = 0
    sent_at: str
    due_at: str | UnsetType = UNSET
    claimed_at: str | UnsetType = UNSET
    finished_at: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    by: str | UnsetType = UNSET

    @property
    def body(self) -> Any:
        """The body as Python has it."""
        return jsontext.decode(bytes(self.body_json))

    @property
    def result(self) -> Any:
        """The result as Python has it; None when there is none."""
        return None if self.result_json is UNSET else jsontext.decode(bytes(self.result_json))

    @property
    def size(self) -> int:
        """Bytes of body and result as they are shown."""
        return len(self.body_json) + (0 if self.result_json is UNSET else len(self.result_json))


class Page(Struct, frozen=True):
    """Some messages, and where the next page starts; None: this was the last."""

    messages: list[MessageView]
    cursor: str | None


def message_view(message_id: str, queue: str, record: Mapping[str, bytes], blob: bytes | None) -> MessageView | None:
    """Return the view of a record: its FIELDS, its lease as `leased`, the size of its blob as `blob_bytes`.

    `blob` is None when the record has none, or one that is too large to be shown. None: this is no message.
    """
    stored_state = record.get("state", b"ready" if "sent" in record else b"").decode(errors="replace")
    if stored_state not in _STATES or "purged" in record:
        return None
    # The leases were read before the records: one that has ended meanwhile is no longer active.
    state = "active" if "leased" in record and stored_state in ("ready", "scheduled", "active") else stored_state
    lease = record.get("leased") or record.get("lease") or b""
    _, deliveries, claimed_ms, by, held_ms, *_ = [*lease.split(b" ", 4), b"", b"", b"", b"", b""]
    finished_ms = record.get("finished")
    if state == "done" and held_ms:
        finished_ms = b"%d" % (number(claimed_ms) + number(held_ms))
    meta = decode_meta(record.get("meta"))
    too_large = "blob_bytes" in record and blob is None
    return MessageView(
        id=message_id,
        queue=queue,
        state=cast("State", state),
        body_json=_NULL if too_large else value(record.get("body", blob or b"")),
        body_bytes=number(record["blob_bytes"]) if too_large else UNSET,
        content_type=meta.content_type,
        headers=meta.headers,
        result_json=value(record["result"]) if "result" in record else UNSET,
        error=attempt(record["error"]) if "error" in record else UNSET,
        reason=text(record["reason"]) if "reason" in record else UNSET,
        progress=_progress(record["progress"]) if "progress" in record else UNSET,
        attempts=attempts(record.get("history")),
        attempts_used=number(record.get("attempts")),
        crashes=number(record.get("crashes")),
        deliveries=number(deliveries),
        sent_at=moment(record.get("sent")),
        due_at=moment(record.get("due")) if state == "scheduled" else UNSET,
        claimed_at=moment(claimed_ms) if claimed_ms else UNSET,
        finished_at=moment(finished_ms) if finished_ms is not None else UNSET,
        expires_at=moment(record["expires"]) if "expires" in record else UNSET,
        by=text(by) if by else UNSET,
    )


def raw_view(queue: str, entry: bytes | int) -> MessageView:
    """Return the view of a raw body on the ready list; of an int, its size, when it is too large to be shown."""
    if isinstance(entry, int):
        return MessageView(id="", queue=queue, state="ready", body_json=_NULL, body_bytes=entry, sent_at="")
    return MessageView(id="", queue=queue, state="ready", body_json=value(entry), sent_at="")


def _progress(stored: bytes) -> Progress:
    at_ms, share, word, *_ = [*stored.split(b" ", 2), b"", b""]
    return Progress(fraction(share), text(word), number(at_ms))
