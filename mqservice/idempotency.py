"""Idempotency keys of HTTP requests, after the IETF draft: the first answer is kept and given again for 24 hours.

Used by the web. A key that is being worked on is held for a minute, so that a process killed in between does not
block it for a day.
"""

import base64
from typing import NamedTuple, cast

import msgspec

from mqservice import jsontext
from mqservice.connections import Connections

KEPT_S = 24 * 3600
_RUNNING_S = 60


class Started(NamedTuple):
    """The key was free and is now ours: do it, then `finish` or `forget`."""


class Running(NamedTuple):
    """The first request with this key has not been answered yet."""


class Mismatch(NamedTuple):
    """The key was used for another request."""


class Stored(NamedTuple):
    """The answer that the first request got."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Entry(msgspec.Struct):
    fingerprint: str
    status: int = 0
    headers: dict[str, str] = {}
    body: str = ""


class Idempotency:
    """The keys, in Redis, for all processes. All calls raise Unavailable and its kin. 1 or 2 round trips each."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def begin(self, key: str, fingerprint: str) -> Started | Running | Mismatch | Stored:
        """Take the key for a request with this fingerprint, or say what stands in the way."""
        redis, name = self._connections.commands, _name(key)
        entry = msgspec.json.encode(_Entry(fingerprint))

        async def take() -> bytes | None:
            return cast("bytes | None", await redis.set(name, entry, nx=True, get=True, ex=_RUNNING_S))

        stored = await self._connections.guard(take)
        if stored is None:
            return Started()
        try:
            first = msgspec.json.decode(stored, type=_Entry)
            body = base64.b64decode(first.body, validate=True)
        except (*jsontext.FAULTS, ValueError):
            return Mismatch()  # somebody else's
        if first.fingerprint != fingerprint:
            return Mismatch()
        if first.status == 0:
            return Running()
        return Stored(first.status, first.headers, body)

    async def finish(self, key: str, fingerprint: str, status: int, headers: dict[str, str], body: bytes) -> None:
        """Keep the answer for 24 hours."""
        entry = msgspec.json.encode(_Entry(fingerprint, status, headers, base64.b64encode(body).decode()))
        await self._connections.guard(lambda: self._connections.commands.set(_name(key), entry, ex=KEPT_S))

    async def forget(self, key: str, fingerprint: str) -> None:
        """Let the key go: nothing was kept of the request, it may be tried again."""
        await self._connections.guard(lambda: self._connections.commands.delete(_name(key)))


def _name(key: str) -> str:
    return f"mq:idempotency:{key}"
