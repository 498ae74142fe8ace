"""What an attack costs the process it hits: how long its loop is held, what it keeps afterwards."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

EVERY_S = 0.002


class LagProbe:
    """Measures how long the loop of the present thread is held in one go.

    `worst_s` is CPU time of this thread between two ticks, so that other processes on the machine do not count.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._cpu_s = time.thread_time()
        self._timer: asyncio.TimerHandle | None = None

    def _tick(self) -> None:
        cpu_s = time.thread_time()
        self.worst_s = max(self.worst_s, cpu_s - self._cpu_s)
        self._cpu_s = time.thread_time()
        self._timer = self._loop.call_later(EVERY_S, self._tick)

    def start(self) -> None:
        self._cpu_s = time.thread_time()
        self._timer = self._loop.call_later(EVERY_S, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.worst_s = max(self.worst_s, time.thread_time() - self._cpu_s)


@asynccontextmanager
async def lag() -> AsyncIterator[LagProbe]:
    """Probe the loop while the block runs; what was there before is frozen, as in production."""
    gc.collect()
    gc.freeze()
    probe = LagProbe()
    probe.start()
    try:
        yield probe
    finally:
        probe.stop()
        gc.unfreeze()


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
