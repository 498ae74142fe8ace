"""What is wrong with a queue while Redis answers: its keys are damaged, or a call about it is refused.

Kept by each loop that claims, settles or pops; read by the watchdog, for the probes.
"""

import time

import structlog

from mqservice.errors import Misconfigured, MqError, Refused, Unavailable, WrongType

log = structlog.get_logger()

OUTAGES = (Unavailable, Misconfigured, WrongType, Refused)
"""What a loop waits out: it may be mended while we run."""

_HEARD_S = 30.0
"""A loop in trouble tries every 5 s or so: one that has not been refused for longer is stuck elsewhere."""


class Fault:
    """The trouble of one loop with one queue. Logged once when it begins, and once when it has ended."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._text = ""
        self._since = self._noted_at = 0.0

    @property
    def text(self) -> str:
        """What is wrong, empty when nothing is."""
        if not self._text or time.monotonic() - self._noted_at > _HEARD_S:
            return ""
        return f"queue {self._queue} is out of order: {self._text}"

    def note(self, error: MqError) -> None:
        """Take note of a failed call. Unavailable is none of the queue's: the connections tell of it."""
        if isinstance(error, Unavailable):
            return
        self._noted_at = time.monotonic()
        if not self._text:
            self._since = self._noted_at
            log.error("queue out of order", queue=self._queue, error=str(error))
        self._text = str(error)

    def end(self) -> None:
        """Take note of a call that was answered."""
        if self._text:
            log.warning("queue in order again", queue=self._queue, after_s=round(time.monotonic() - self._since, 1))
            self._text = ""
