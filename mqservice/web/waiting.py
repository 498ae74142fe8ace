"""Waiting for a message to end while its client holds the line."""

import asyncio
import re
from typing import Final

from aiohttp import web
from msgspec import UNSET, UnsetType

from mqservice.config import QueueOptions
from mqservice.message_view import MessageView
from mqservice.results import ENDED
from mqservice.web.context import CONTEXT
from mqservice.web.parameters import Duration

LONGEST_S: Final = 300.0
RETRY_AFTER: Final = {"Retry-After": "1"}

_PREFER_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)


class Waits:
    """The waits of this process's clients, which a stop cuts short instead of cutting them off."""

    def __init__(self) -> None:
        self._open: set[asyncio.Timeout] = set()

    async def ended(
        self, request: web.Request, queue: QueueOptions, message_id: str, wait_s: float
    ) -> MessageView | None:
        """Return the message once it has ended, else as it is after `wait_s` or when the service stops; None: unknown.

        Raises Unavailable.
        """
        waiters = request.app[CONTEXT].waiters
        try:
            async with asyncio.timeout(None) as cut:
                self._open.add(cut)
                return await waiters.wait(queue, message_id, wait_s)
        except TimeoutError:
            return await waiters.wait(queue, message_id, 0.0)
        finally:
            self._open.discard(cut)

    async def cut_short(self, _app: web.Application) -> None:
        """Let every wait return what is known now."""
        for cut in self._open:
            cut.reschedule(asyncio.get_running_loop().time())


WAITS: web.AppKey[Waits] = web.AppKey("waits", Waits)


def wait_s(request: web.Request, wait: Duration | UnsetType) -> float:
    """Return how long the client wants to wait: `?wait=`, else `Prefer: wait=` (RFC 7240), else 0; 300 s at most."""
    if wait is not UNSET:
        return min(wait.ms / 1000, LONGEST_S)
    if "Prefer" not in request.headers:
        return 0.0
    preferred = _PREFER_WAIT.search(", ".join(request.headers.getall("Prefer", ())))
    return min(float(preferred[1]), LONGEST_S) if preferred else 0.0


def has_ended(view: MessageView) -> bool:
    """Tell whether nothing more will become of a message by itself."""
    return view.state in ENDED
