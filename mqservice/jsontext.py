"""JSON as text: told from what is none, and decoded, without holding the loop for long.

Used wherever a body is checked, shown or handed to a handler. A megabyte of `[[[]],[[]],…` becomes 400,000 lists; the
garbage collector, which looks at all of them again and again while they are made, takes 86 ms of 107.
"""

import asyncio
import gc
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

T = TypeVar("T")
Text = TypeVar("Text", bytes, Raw, bytes | Raw)

LARGE_BYTES: Final = 64 << 10
"""From here on what is cheaper for large texts is done."""

FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a text that is not JSON, or not the JSON that is wanted."""

_ANY: Final = msgspec.json.Decoder()
_RAW: Final = msgspec.json.Decoder(Raw)


def fault(text: bytes | Raw) -> str:
    """Return what is wrong with JSON, with the position where it is known; "" when nothing is."""
    try:
        without_pauses(_discard, text)
    except RecursionError:
        return "JSON is nested too deeply"
    except UnicodeDecodeError as error:
        return f"JSON is not UTF-8: {error.reason} (byte {error.start} of a string)"
    except msgspec.DecodeError as error:
        return str(error) if text else "the body is empty, which is not JSON"
    return ""


def is_wellformed(text: bytes) -> bool:
    """Tell whether a text has the form of JSON; of a large one whether its numbers are in range is not looked at."""
    if len(text) < LARGE_BYTES:
        return not fault(text)
    try:
        _RAW.decode(text)
        text.decode()
    except FAULTS:
        return False
    return True


def decode(text: bytes) -> Any:
    """Return what JSON says. Raises one of FAULTS."""
    return without_pauses(_ANY.decode, text)


def without_pauses(decoded: Callable[[Text], T], text: Text) -> T:
    """Return `decoded(text)`; of a large text with the garbage collector held still until the loop's next turn."""
    if len(text) < LARGE_BYTES or not gc.isenabled():
        return decoded(text)
    gc.disable()
    try:
        return decoded(text)
    finally:
        _enable_soon()


def _enable_soon() -> None:
    """By then what was decoded may be gone again, as after a check or a quick handler."""
    try:
        asyncio.get_running_loop().call_soon(gc.enable)
    except RuntimeError:  # no loop runs here
        gc.enable()


def _discard(text: bytes | Raw) -> None:
    """Decode, and let go of it before the collector looks."""
    _ANY.decode(text)
