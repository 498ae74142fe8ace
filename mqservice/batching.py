"""Group commit: what arrives while a batch is on its way shares the next one.

Used by the broker for sends, pushes and settles. Each caller still awaits its own answer.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


_ENOUGH = 32
"""Items that wait, from which a further flush under way pays: fewer are better off with those still to come."""


class Batcher(Generic[Item, Answer]):
    """Turns many `put` into few `flush`, begun in order, at most `depth` at a time.

    `flush` gets at most `limit` items, whose sizes add up to at most `limit_bytes` unless a single one is larger,
    and returns one answer an item. When it raises, every caller of that batch gets the error.

    With a depth of two, callers in step (each sends again when it is answered) fall into two groups: while one is on
    its way, the other prepares. A hundred callers then send 1.5 times as much.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        name: str,
        limit: int = 200,
        limit_bytes: int = 4 << 20,
        depth: int = 1,
    ) -> None:
        self._flush, self._name, self._depth = flush, name, depth
        self._new_future: Callable[[], asyncio.Future[Answer]] = self._first_future
        self._limit, self._limit_bytes = limit, limit_bytes
        self._waiting: deque[tuple[Item, int, asyncio.Future[Answer]]] = deque()
        self._flushers: set[asyncio.Task[None]] = set()
        self._flushing = 0

    def put(self, item: Item, size: int = 0) -> asyncio.Future[Answer]:
        """Hand in one item of `size` bytes; its answer is there after the flush that carried it.

        Cancelling who waits for it does not take the item out of a flush that is under way.
        """
        future = self._new_future()
        self._waiting.append((item, size, future))
        if not self._flushers or (len(self._flushers) < self._depth and len(self._waiting) >= _ENOUGH):
            # Not in the context of whoever comes first: it works for all, and logs about nobody's message.
            flusher = asyncio.create_task(self._run(), name=self._name, context=Context())
            self._flushers.add(flusher)
            flusher.add_done_callback(self._ended)
        return future

    @property
    def is_idle(self) -> bool:
        """Whether all that was handed in has been answered."""
        return not self._flushers

    async def aclose(self) -> None:
        """Wait until all that was handed in has been answered."""
        while self._flushers:
            await asyncio.wait(self._flushers)

    def _first_future(self) -> asyncio.Future[Answer]:
        """Ask for the loop once, which takes 0.2 µs: it is the same for every `put`."""
        self._new_future = asyncio.get_running_loop().create_future
        return self._new_future()

    async def _run(self) -> None:
        while self._waiting:
            await self._flush_one()
        self._flushers.discard(asyncio.current_task())

    def _ended(self, flusher: asyncio.Task[None]) -> None:
        """Let nobody wait for a flusher that was cancelled from outside, even before its first step."""
        self._flushers.discard(flusher)
        if not flusher.cancelled() or self._flushers:
            return
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    async def _flush_one(self) -> None:
        items, futures = self._take()
        if not items:
            return
        self._flushing += 1
        try:
            answers: Sequence[Answer] = await self._flush(items)
            if len(answers) != len(items):
                raise ValueError(f"{self._name}: {len(answers)} answers to {len(items)} items")
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who wait for it
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        finally:
            self._flushing -= 1
        for future, answer in zip(futures, answers, strict=False):
            if not future.done():
                future.set_result(answer)

    def _take(self) -> tuple[list[Item], list[asyncio.Future[Answer]]]:
        items: list[Item] = []
        futures: list[asyncio.Future[Answer]] = []
        total = 0
        at_hand = len(self._flushers) - self._flushing  # to share with
        limit = min(self._limit, -(-len(self._waiting) // at_hand))
        while self._waiting and len(items) < limit:
            item, size, future = self._waiting[0]
            if items and total + size > self._limit_bytes:
                break
            self._waiting.popleft()
            if not future.done():  # a caller that gave up before its turn sends nothing
                items.append(item)
                futures.append(future)
                total += size
        return items, futures
