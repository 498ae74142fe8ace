"""Just enough of the Redis protocol to know where a request or a reply begins and ends, and what a request asks."""

import hashlib
from dataclasses import dataclass

from mqservice import scripts

_NAMES = {script.sha.encode(): script.name for script in scripts.ALL}
_BULK, _ARRAY, _MAP = b"$!=", b"*~>", b"%|"


def value_end(data: bytes | bytearray, start: int = 0) -> int | None:
    """Return where the value that begins at `start` ends (the index after it); None: it is not complete yet."""
    values_left, at = 1, start
    while values_left:
        newline = data.find(b"\r\n", at)
        if newline < 0:
            return None
        kind, number = data[at : at + 1], data[at + 1 : newline]
        at = newline + 2
        values_left -= 1
        if kind in _BULK:
            at += int(number) + 2 if int(number) >= 0 else 0
        elif kind in _ARRAY:
            values_left += max(0, int(number))
        elif kind in _MAP:
            values_left += 2 * int(number)
    return at if at <= len(data) else None


@dataclass(frozen=True)
class Request:
    """One request as its client sent it."""

    data: bytes
    name: str
    """The command in small letters; for a call of one of our scripts the script's name, such as `claim`."""

    @classmethod
    def parse(cls, data: bytes) -> "Request":
        """Return the request in `data`, a complete array of bulk strings."""
        words = _words(data, 2)
        name = words[0].lower().decode(errors="replace")
        if name == "evalsha" and len(words) > 1:
            name = _NAMES.get(words[1].lower(), name)
        elif name == "eval" and len(words) > 1:
            name = _NAMES.get(hashlib.sha1(words[1]).hexdigest().encode(), name)
        return cls(data, name)


def _words(data: bytes, most: int) -> list[bytes]:
    """Return the first words of a request."""
    words: list[bytes] = []
    at = data.index(b"\r\n") + 2
    while len(words) < most and at < len(data):
        newline = data.index(b"\r\n", at)
        size = int(data[at + 1 : newline])
        words.append(data[newline + 2 : newline + 2 + size])
        at = newline + 2 + size + 2
    return words
