"""Group commit: who shares a flush with whom, and what each caller gets."""

import asyncio
from collections.abc import Sequence

import pytest

from mqservice.batching import Batcher
from tests.waiting import until


class Flush:
    """A flush in the hands of the test: keeps its batches, waits while `gate` is closed, answers ten times the item."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.running = self.most_at_once = 0

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        error, self.error = self.error, None
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if error is not None:
            raise error
        return [10 * item for item in items]


@pytest.fixture
async def flush() -> Flush:
    return Flush()


@pytest.fixture
async def batcher(flush: Flush) -> Batcher[int, int]:
    return Batcher(flush, "batches")


async def hand_in(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    """Start a caller for each item, which is its own size; return when all have been handed in."""
    started = []

    async def put(item: int) -> int:
        started.append(item)
        return await batcher.put(item, size=item)

    callers = [asyncio.create_task(put(item), name=f"caller {item}") for item in items]
    await until(lambda: len(started) == len(callers))
    return callers


async def under_way(batcher: Batcher[int, int], flush: Flush, item: int = 0) -> asyncio.Task[int]:
    """Hand in one item, whose flush waits at the gate."""
    (caller,) = await hand_in(batcher, item)
    await until(lambda: flush.running)
    return caller


def flusher() -> asyncio.Task[object]:
    return next(task for task in asyncio.all_tasks() if task.get_name() == "batches")


async def ended(callers: Sequence[asyncio.Future[int]]) -> bool:
    """Tell whether all callers end soon; end them if not."""
    _, waiting = await asyncio.wait(callers, timeout=0.1)
    for caller in waiting:
        caller.cancel()
    await asyncio.wait(callers)
    return not waiting


async def test_put_when_nothing_is_under_way_then_it_is_flushed_at_once(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    flush.gate.set()
    assert await batcher.put(7) == 70
    assert await batcher.put(8) == 80
    assert flush.batches == [[7], [8]]


async def test_put_when_many_come_in_one_turn_then_they_share_the_first_flush(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    flush.gate.set()
    assert await asyncio.gather(*(batcher.put(item) for item in range(50))) == [10 * item for item in range(50)]
    assert flush.batches == [list(range(50))]


async def test_put_when_a_flush_is_under_way_then_all_share_the_next_and_each_gets_its_own_answer(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    first = await under_way(batcher, flush)
    callers = await hand_in(batcher, 1, 2, 3)
    assert flush.batches == [[0]]
    flush.gate.set()
    assert await asyncio.gather(first, *callers) == [0, 10, 20, 30]
    assert flush.batches == [[0], [1, 2, 3]]
    assert flush.most_at_once == 1


async def test_put_when_more_wait_than_the_limit_then_the_flushes_are_full_and_in_order(flush: Flush) -> None:
    batcher: Batcher[int, int] = Batcher(flush, "batches", limit=2)
    callers = [await under_way(batcher, flush), *await hand_in(batcher, 1, 2, 3, 4, 5)]
    flush.gate.set()
    assert await asyncio.gather(*callers) == [0, 10, 20, 30, 40, 50]
    assert flush.batches == [[0], [1, 2], [3, 4], [5]]


async def test_put_when_the_sizes_exceed_limit_bytes_then_each_flush_stays_below_it_unless_one_alone_is_larger(
    flush: Flush,
) -> None:
    batcher: Batcher[int, int] = Batcher(flush, "batches", limit_bytes=10)
    callers = [await under_way(batcher, flush), *await hand_in(batcher, 4, 6, 1, 25, 9, 2)]
    flush.gate.set()
    await asyncio.gather(*callers)
    assert flush.batches == [[0], [4, 6], [1], [25], [9], [2]]


async def test_put_when_its_flush_fails_then_all_of_that_batch_get_the_error_and_no_other(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    before = await under_way(batcher, flush)
    flush.error = ConnectionError("gone")
    failing = await hand_in(batcher, 1, 2)
    flush.gate.set()
    assert await before == 0
    for caller in failing:
        with pytest.raises(ConnectionError, match="gone"):
            await caller
    assert await batcher.put(3) == 30
    assert flush.batches == [[0], [1, 2], [3]]


async def test_put_when_a_batch_waits_behind_a_failing_one_then_it_is_still_flushed(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    flush.error = ConnectionError("gone")
    failing = await under_way(batcher, flush)
    (waiting,) = await hand_in(batcher, 1)
    flush.gate.set()
    assert await waiting == 10
    assert isinstance(failing.exception(), ConnectionError)


async def test_put_when_two_flushes_may_be_under_way_then_callers_in_step_fall_into_two_groups(flush: Flush) -> None:
    batcher: Batcher[int, int] = Batcher(flush, "batches", depth=2)
    callers = [batcher.put(item) for item in range(100)]
    await until(lambda: flush.running == 2)
    assert flush.batches == [list(range(50)), list(range(50, 100))]
    callers += [batcher.put(item) for item in range(100, 200)]
    await asyncio.sleep(0)
    assert flush.running == 2, "a third one"
    flush.gate.set()
    assert await asyncio.gather(*callers) == [10 * item for item in range(200)]
    assert [item for batch in flush.batches for item in batch] == list(range(200))
    assert flush.most_at_once == 2


async def test_put_when_few_wait_behind_a_flush_then_they_wait_for_more_of_them(flush: Flush) -> None:
    batcher: Batcher[int, int] = Batcher(flush, "batches", depth=2)
    callers = [await under_way(batcher, flush)]
    callers += await hand_in(batcher, *range(1, 32))
    await asyncio.sleep(0)
    assert flush.batches == [[0]]
    callers += await hand_in(batcher, 32)
    await until(lambda: flush.running == 2)
    assert flush.batches == [[0], list(range(1, 33))]
    closing = asyncio.create_task(batcher.aclose(), name="closing")
    await asyncio.sleep(0)
    assert not closing.done()
    flush.gate.set()
    await closing
    assert all(caller.done() for caller in callers)


async def test_put_when_one_of_two_flushers_is_cancelled_then_the_other_takes_what_waits(flush: Flush) -> None:
    batcher: Batcher[int, int] = Batcher(flush, "batches", depth=2)
    callers = [batcher.put(item) for item in range(100)]
    await until(lambda: flush.running == 2)
    waiting = batcher.put(100)
    flusher().cancel()
    await until(lambda: flush.running == 1)
    flush.gate.set()
    assert await waiting == 1000
    await batcher.aclose()
    assert sum(caller.cancelled() for caller in callers) == 50


async def test_put_when_its_caller_is_cancelled_before_its_turn_then_nothing_is_sent(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    first = await under_way(batcher, flush)
    given_up, kept = await hand_in(batcher, 1, 2)
    given_up.cancel()
    flush.gate.set()
    assert await first == 0
    assert await kept == 20
    assert given_up.cancelled()
    assert flush.batches == [[0], [2]]


async def test_put_when_all_who_wait_are_cancelled_then_there_is_no_empty_flush(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    first = await under_way(batcher, flush)
    for caller in await hand_in(batcher, 1, 2):
        caller.cancel()
    flush.gate.set()
    await first
    await batcher.aclose()
    assert flush.batches == [[0]]


async def test_put_when_its_caller_is_cancelled_during_the_flush_then_the_others_are_answered(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    given_up, kept = await hand_in(batcher, 1, 2)
    await until(lambda: flush.running)
    given_up.cancel()
    flush.gate.set()
    assert await kept == 20
    assert given_up.cancelled()
    assert flush.batches == [[1, 2]]


async def test_put_when_the_flush_answers_too_few_then_no_caller_waits_for_ever() -> None:
    async def forgetful(items: Sequence[int]) -> Sequence[int]:
        return items[:1]

    assert await ended(await hand_in(Batcher(forgetful, "batches"), 1, 2))


async def test_put_when_the_flusher_is_cancelled_then_all_callers_are_and_the_next_put_works(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    callers = [await under_way(batcher, flush), *await hand_in(batcher, 1, 2)]
    flusher().cancel()
    assert await ended(callers)
    assert all(caller.cancelled() for caller in callers)
    flush.gate.set()
    assert await batcher.put(3) == 30


async def test_put_when_the_flusher_is_cancelled_before_it_began_then_the_caller_does_not_wait_for_ever(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    answer = batcher.put(1)
    flusher().cancel()
    assert await ended([answer])


async def test_aclose_when_nothing_was_handed_in_then_it_returns(batcher: Batcher[int, int]) -> None:
    await batcher.aclose()


async def test_aclose_when_a_flush_is_under_way_then_it_waits_for_that_and_for_all_who_wait(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    callers = [await under_way(batcher, flush), *await hand_in(batcher, 1, 2)]
    closing = asyncio.create_task(batcher.aclose(), name="closing")
    callers += await hand_in(batcher, 3)
    assert not closing.done()
    flush.gate.set()
    await closing
    assert [caller.done() for caller in callers] == [True] * 4
    assert flush.batches == [[0], [1, 2, 3]]


async def test_aclose_when_the_flush_fails_then_it_returns_and_leaves_the_error_to_the_caller(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    flush.error = ConnectionError("gone")
    caller = await under_way(batcher, flush)
    flush.gate.set()
    await batcher.aclose()
    assert isinstance(caller.exception(), ConnectionError)
