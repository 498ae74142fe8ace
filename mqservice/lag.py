"""How late the event loop is, and who holds it up.

`beat` runs on the loop, `watch` in the sidecar: only another thread can tell what blocks this one.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger()

Who = Callable[[asyncio.Task[Any] | None], dict[str, str]]
"""Says which message a task works on, as fields of a log line."""

_BEAT_S = 0.05
_LOOK_S = 0.25
_REPORT_S = 1.0
"""A loop that is stuck for longer is reported, with the stack that holds it."""

_KEPT_BEATS = 200
"""The worst of so many beats is told: ten seconds' worth, while the loop turns."""

_STACK_CHARS = 4_000


class LoopLag:
    """Watches the loop on which `beat` runs."""

    def __init__(self, who: Who) -> None:
        self._who = who
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._late: deque[float] = deque([0.0], _KEPT_BEATS)

    @property
    def worst_ms(self) -> float:
        """How late the loop has been at worst in the last ten seconds."""
        return max(*self._late, self.stuck_s) * 1000

    @property
    def stuck_s(self) -> float:
        """For how long the loop has not turned. Thread-safe."""
        return max(0.0, time.monotonic() - self._beat_at - _BEAT_S)

    async def beat(self) -> None:
        """Note that the loop turns, until cancelled."""
        while True:
            await asyncio.sleep(_BEAT_S)
            late_s = self.stuck_s
            self._late.append(late_s)
            self._beat_at = time.monotonic()
            if late_s > _REPORT_S:
                log.warning("event loop goes on", stuck_s=round(late_s, 1))

    async def watch(self) -> None:
        """Report once whenever the loop is stuck, with the stack and the message, until cancelled."""
        reported_at = 0.0
        while True:
            await asyncio.sleep(_LOOK_S)
            if self.stuck_s > _REPORT_S and self._beat_at != reported_at:
                reported_at = self._beat_at
                self._report()

    def _report(self) -> None:
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the documented way to another thread's stack
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        log.warning("event loop stuck", stuck_s=round(self.stuck_s, 1), **self._who(task), stack=stack[-_STACK_CHARS:])
