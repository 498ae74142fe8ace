"""The fields of a message's record, read whatever is in them.

Used by the views. Anybody with access to Redis may have written a record: what does not fit becomes 0, text or nothing,
never an error.
"""

import base64
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Raw

from mqservice import jsontext
from mqservice.message import JSON, Attempt

_ATTEMPT: Final = msgspec.json.Decoder(Attempt)
_TEXT_CHARS: Final = 2_000
_LATEST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, where datetime ends too."""


def number(stored: bytes | None) -> int:
    """Return a count or a time; 0 for what is none."""
    return int(stored) if stored and len(stored) <= 18 and stored.isdigit() else 0


def text(stored: bytes) -> str:
    """Return a short text, with what is not UTF-8 replaced."""
    return stored[:_TEXT_CHARS].decode(errors="replace")


def moment(stored: bytes | None) -> str:
    """Return epoch ms as RFC 3339, UTC."""
    at = datetime.fromtimestamp(min(number(stored), _LATEST_MS) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def attempt(stored: bytes) -> Attempt:
    """Return a failed run; for what is none, one that quotes it."""
    try:
        return _ATTEMPT.decode(stored)
    except jsontext.FAULTS:
        return Attempt("Unreadable", text(stored))


def attempts(stored: bytes | None) -> list[Attempt]:
    """Return the history, a failed run a line; its last ten."""
    return [attempt(line) for line in (stored or b"").splitlines()[-10:]]


def value(stored: bytes) -> Raw:
    """Return JSON as it is, other text as a JSON string, other bytes as {"base64": ...}."""
    if jsontext.is_wellformed(stored):
        return Raw(stored)
    try:
        return Raw(JSON.encode(stored.decode()))
    except UnicodeDecodeError:
        return Raw(JSON.encode({"base64": base64.b64encode(stored).decode()}))


def fraction(stored: bytes) -> float:
    """Return a share between 0 and 1; 0 for what is none."""
    try:
        share = float(stored)
    except ValueError:
        return 0.0
    return share if 0.0 <= share <= 1.0 else 0.0
