"""A message that this process holds the lease of, from its claim to its last answer."""

import asyncio

import msgspec

from mqservice.message import Claimed, Receipt


class Held(msgspec.Struct, eq=False, gc=False):
    """A claimed message on its way through consumer, lane and settler."""

    claimed: Claimed
    claimed_at: float = 0.0
    """Monotonic time at which we learned that it is ours."""
    started_at: float = 0.0
    """Monotonic time at which its handler was called; 0: it waits for a lane."""
    task: asyncio.Task[None] | None = None
    """The lane that works on it now: no cycle, since a lane that goes on or ends takes itself out of here."""
    settling: bool = False
    """Its outcome is known and on its way."""
    given_up: bool = False
    """The lease is lost or given back: whatever the handler still does no longer counts."""
    cancelled: bool = False
    """Somebody cancelled the message, and its coroutine has been told."""

    @property
    def receipt(self) -> Receipt:
        """What proves the lease."""
        return self.claimed.receipt
