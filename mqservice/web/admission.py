"""Who may be connected: at most so many, and a new client never waits for those who only hold the line.

When the house is full, whoever has been connected longest without a whole request goes first, then whoever idles
between two. Only when all are being answered is a new client turned away.
"""

import asyncio
import resource
from collections import OrderedDict
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

_OURS: Final = 256
"""Descriptors that we need ourselves: Redis, files, the handlers' own connections."""

_TRIES: Final = 100
"""Connections looked at to find an idle one, so that a full house does not make every arrival slow."""

_LOG_EVERY_S: Final = 60.0


class Guest(Protocol):
    """A connection, as far as it matters here."""

    @property
    def has_asked(self) -> bool:
        """Whether a whole request has ever come."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered or waiting for it."""

    def leave(self) -> None:
        """Close the connection."""


class Admission:
    """The open connections of one listener, at most `most`; fewer where the system allows fewer descriptors."""

    def __init__(self, most: int) -> None:
        self._most = min(most, _descriptors(most + _OURS) - _OURS)
        self._new: OrderedDict[Guest, None] = OrderedDict()
        """Those who have not asked, as far as we have looked; the oldest first."""
        self._known: OrderedDict[Guest, None] = OrderedDict()
        self._logged_at = float("-inf")

    def __len__(self) -> int:
        return len(self._new) + len(self._known)

    def enter(self, guest: Guest) -> bool:
        """Let a connection in, and another one go for it when the house is full; False: it has to leave."""
        if len(self) >= self._most:
            self._note()
            idle = self._idle()
            if idle is None:
                return False
            self.left(idle)
            idle.leave()
        self._new[guest] = None
        return True

    def left(self, guest: Guest) -> None:
        """Forget a connection. Twice is once."""
        self._new.pop(guest, None)
        self._known.pop(guest, None)

    def _idle(self) -> Guest | None:
        while self._new:
            guest = next(iter(self._new))
            if not guest.has_asked:
                return guest
            del self._new[guest]
            self._known[guest] = None
        for _ in range(min(_TRIES, len(self._known))):
            guest = next(iter(self._known))
            if guest.is_idle:
                return guest
            self._known.move_to_end(guest)
        return None

    def _note(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged_at > _LOG_EVERY_S:
            self._logged_at = now
            log.warning("too many connections", most=self._most)


def _descriptors(wanted: int) -> int:
    """Raise this process's limit of open files as far as it may and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
