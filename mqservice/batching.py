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


class Batcher(Generic[Item, Answer]):
    """Turns many `put` into few `flush`; one flush at a time, in order.

    `flush` gets at most `limit` items, whose sizes add up to at most `limit_bytes` unless a single one is larger,
    and returns one answer an item. When it raises, every caller of that batch gets the error.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        name: str,
        limit: int = 200,
        limit_bytes: int = 4 << 20,
    ) -> None:
        self._flush, self._name = flush, name
        self._limit, self._limit_bytes = limit, limit_bytes
        self._waiting: deque[tuple[Item, int, asyncio.Future[Answer]]] = deque()
        self._flusher: asyncio.Task[None] | None = None

    def put(self, item: Item, size: int = 0) -> asyncio.Future[Answer]:
        """Hand in one item of `size` bytes; its answer is there after the flush that carried it.

        Cancelling who waits for it does not take the item out of a flush that is under way.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, size, future))
        if self._flusher is None:
            # Not in the context of whoever comes first: it works for all, and logs about nobody's message.
            self._flusher = asyncio.create_task(self._run(), name=self._name, context=Context())
            self._flusher.add_done_callback(self._ended)
        return future

    @property
    def is_idle(self) -> bool:
        """Whether all that was handed in has been answered."""
        return self._flusher is None

    async def aclose(self) -> None:
        """Wait until all that was handed in has been answered."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])

    async def _run(self) -> None:
        while self._waiting:
            await self._flush_one()
        self._flusher = None

    def _ended(self, flusher: asyncio.Task[None]) -> None:
        """Let nobody wait for a flusher that was cancelled from outside, even before its first step."""
        if not flusher.cancelled():
            return
        self._flusher = None
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    async def _flush_one(self) -> None:
        items, futures = self._take()
        if not items:
            return
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
        for future, answer in zip(futures, answers, strict=False):
            if not future.done():
                future.set_result(answer)

    def _take(self) -> tuple[list[Item], list[asyncio.Future[Answer]]]:
        items: list[Item] = []
        futures: list[asyncio.Future[Answer]] = []
        total = 0
        while self._waiting and len(items) < self._limit:
            item, size, future = self._waiting[0]
            if items and total + size > self._limit_bytes:
                break
            self._waiting.popleft()
            if not future.done():  # a caller that gave up before its turn sends nothing
                items.append(item)
                futures.append(future)
                total += size
        return items, futures
