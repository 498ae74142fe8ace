"""Lanes: the tasks in which handlers run, used again for message after message.

Used by the consumer. A lane takes one waiting message after the other. Only when one of them suspends is another lane
opened for the rest, so a hundred handlers that never suspend share one task: making a task for each took 40 % of a
drain's time.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from mqservice.held import Held

_SLICE_S = 0.005
"""How long handlers that never suspend may keep the event loop from anybody else."""


class Lanes:
    """Runs `work` for what is put in, in order, at most `limit` at the same time.

    `work` must not raise, but for CancelledError when `aclose` cancels its lane.
    """

    def __init__(self, work: Callable[[Held], Awaitable[None]], limit: int, name: str) -> None:
        self._work, self._limit, self._name = work, limit, name
        self._waiting: deque[Held] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forsaken: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Handle | None = None
        self.closing = False
        """Lanes that are cancelled now shall end, and not go on with the next message."""
        self._left = asyncio.Event()
        self._width = 1
        self._yielding = False
        self._slice_began_at = 0.0

    @property
    def busy(self) -> int:
        """Messages that run or wait to."""
        return len(self._tasks) + len(self._waiting)

    def put(self, messages: Sequence[Held]) -> None:
        """Run these once there is a lane for them."""
        self._waiting.extend(messages)
        self._width = 1
        self._open_soon()

    def take_back(self) -> list[Held]:
        """Return those that wait still, which then never run."""
        messages = list(self._waiting)
        self._waiting.clear()
        return messages

    def take_late(self, limit: float) -> list[Held]:
        """Return those that wait still, when that is since before `limit` and for no want of a lane to open."""
        if len(self._tasks) < self._limit or not self._waiting or self._waiting[0].claimed_at > limit:
            return []
        return self.take_back()

    def remove(self, held: Held) -> bool:
        """Let one that waits still never run. False when it does not wait."""
        try:
            self._waiting.remove(held)
        except ValueError:
            return False
        return True

    async def wait_left(self, messages: Sequence[Held], timeout_s: float) -> list[Held]:
        """Wait until no lane works on these any more; return those on which one still does after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(held.task is not None for held in messages):
                    self._left.clear()
                    await self._left.wait()
        return [held for held in messages if held.task is not None]

    def forsake(self, held: Held) -> None:
        """Count the lane of a handler that will not end no longer: another may be opened in its place."""
        if held.task is not None and held.task in self._tasks:
            self._tasks.discard(held.task)
            self._forsaken.add(held.task)
            held.task.add_done_callback(self._forsaken.discard)
            self._open_soon()

    async def aclose(self, patience_s: float = 2.0) -> None:
        """Cancel every lane and wait until all have ended, but for those whose handlers will not."""
        self.closing = True
        self._waiting.clear()
        tasks = self._tasks | self._forsaken
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        if self._opening is not None:
            self._opening.cancel()

    def _open_soon(self) -> None:
        if self._opening is None:
            self._slice_began_at = time.monotonic()
            self._opening = asyncio.get_running_loop().call_soon(self._open)

    def _open(self) -> None:
        """Open lanes for what waits: the ones that are open have all suspended."""
        self._opening = None
        if self._yielding:
            return  # that lane goes on: its handlers do not suspend, and more lanes would only take turns
        count = min(self._width, len(self._waiting), self._limit - len(self._tasks))
        self._width *= 2
        for _ in range(count):
            task = asyncio.create_task(self._lane(), name=self._name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _lane(self) -> None:
        task = asyncio.current_task()
        while self._waiting and task is not None and task in self._tasks:
            held = self._waiting.popleft()
            self._open_soon()
            held.task = task
            try:
                await self._work(held)
            finally:
                held.task = None
                self._left.set()
            if task.cancelling():
                await _shake_off(task)
            if self._waiting and time.monotonic() - self._slice_began_at > _SLICE_S:
                self._yielding = True
                await asyncio.sleep(0)
                self._yielding = False


async def _shake_off(task: asyncio.Task[None]) -> None:
    """Forget a cancellation that was meant for the message before."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # where one would strike that has been asked for, but not yet been thrown
    while task.cancelling():
        task.uncancel()
