"""The sidecar: a thread with an event loop of its own, for what must go on while handlers block the main one.

Started and stopped by the runtime.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

log = structlog.get_logger()

Part = Callable[[], Coroutine[Any, Any, None]]

_STOP_S = 5.0


class Sidecar:
    """Runs `parts`, each of which must go on until it is cancelled. One that fails is logged, and tried again."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._thread = threading.Thread(target=self._main, name="sidecar", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._running = threading.Event()

    def start(self) -> None:
        """Start the thread; return when it runs."""
        self._thread.start()
        self._running.wait()

    async def stop(self) -> None:
        """Cancel what runs, and wait for the thread. Before start it does nothing."""
        if self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, _STOP_S)

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks = [asyncio.create_task(self._go_on(part), name="sidecar") for part in self._parts]
        self._running.set()
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    @staticmethod
    async def _go_on(part: Part) -> None:
        while True:
            try:
                await part()
            except Exception as error:
                # Nobody awaits this thread: it has to help itself.
                log.error("sidecar failed", error=repr(error), exc_info=error)
            await asyncio.sleep(1)
