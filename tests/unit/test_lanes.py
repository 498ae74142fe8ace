"""Lanes: tasks in which handlers run, used again, opened only for those that suspend."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mqservice.held import Held
from mqservice.lanes import Lanes
from mqservice.message import NO_META, Claimed, Receipt
from tests.waiting import until


def held(number: int) -> Held:
    return Held(Claimed(Receipt(f"m{number}", "8000000000000001"), b"", NO_META, 0, 0, 0))


def many(count: int) -> list[Held]:
    return [held(number) for number in range(count)]


class Record:
    """What ran, in order, and in which tasks."""

    def __init__(self, suspend: Callable[[Held], Awaitable[object]] | None = None) -> None:
        self.ended: list[str] = []
        self.tasks: set[int] = set()
        self.at_once = self.most_at_once = 0
        self._suspend = suspend

    async def work(self, message: Held) -> None:
        task = asyncio.current_task()
        assert task is message.task
        self.tasks.add(id(task))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self._suspend is not None:
                await self._suspend(message)
        finally:
            self.at_once -= 1
        self.ended.append(message.receipt.id)


async def test_put_when_no_handler_suspends_then_one_task_runs_all_in_order() -> None:
    record = Record()
    lanes = Lanes(record.work, 10, "test")
    lanes.put(many(100))
    await until(lambda: len(record.ended) == 100)
    assert record.ended == [f"m{n}" for n in range(100)]
    assert len(record.tasks) == 1
    await until(lambda: lanes.busy == 0)


async def test_put_when_handlers_suspend_then_as_many_run_at_once_as_may() -> None:
    gate = asyncio.Event()
    record = Record(lambda _: gate.wait())
    lanes = Lanes(record.work, 7, "test")
    lanes.put(many(20))
    await until(lambda: record.at_once == 7)
    gate.set()
    await until(lambda: len(record.ended) == 20)
    assert record.most_at_once == 7


async def test_put_when_a_handler_never_suspends_for_long_then_the_loop_turns_in_between() -> None:
    turns = 0

    async def busy(_: Held) -> None:
        until_at = asyncio.get_running_loop().time() + 0.003
        while asyncio.get_running_loop().time() < until_at:
            pass

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn) if turns < 1000 and lanes.busy else None

    record = Record(busy)
    lanes = Lanes(record.work, 5, "test")
    lanes.put(many(30))
    asyncio.get_running_loop().call_soon(turn)
    await until(lambda: len(record.ended) == 30)
    assert turns >= 10


async def test_cancel_when_one_runs_then_only_that_one_is_cancelled_and_its_lane_goes_on() -> None:
    gates = {f"m{n}": asyncio.Event() for n in range(3)}
    cancelled = []

    async def work(message: Held) -> None:
        try:
            await gates[message.receipt.id].wait()
        except asyncio.CancelledError:
            cancelled.append(message.receipt.id)
            return
        ended.append(message.receipt.id)

    ended: list[str] = []
    messages = many(3)
    lanes = Lanes(work, 1, "test")
    lanes.put(messages)
    await until(lambda: messages[0].task is not None)
    task = messages[0].task
    assert task is not None
    task.cancel()
    await until(lambda: messages[1].task is task)
    for gate in gates.values():
        gate.set()
    await until(lambda: ended == ["m1", "m2"])
    assert cancelled == ["m0"]


async def test_work_when_it_cancels_its_own_task_and_returns_then_the_next_is_not_cancelled() -> None:
    ended = []

    async def work(message: Held) -> None:
        if message.receipt.id == "m0":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return
        await asyncio.sleep(0)
        ended.append(message.receipt.id)

    lanes = Lanes(work, 1, "test")
    lanes.put(many(3))
    await until(lambda: ended == ["m1", "m2"])


async def test_forsake_when_a_handler_will_not_end_then_another_lane_takes_its_place() -> None:
    gate, ended = asyncio.Event(), []

    async def work(message: Held) -> None:
        if message.receipt.id == "m0":
            await gate.wait()
        ended.append(message.receipt.id)

    messages = many(3)
    lanes = Lanes(work, 1, "test")
    lanes.put(messages)
    await until(lambda: messages[0].task is not None)
    assert await lanes.wait_left(messages[:1], 0.01) == messages[:1]
    lanes.forsake(messages[0])
    await until(lambda: ended == ["m1", "m2"])
    gate.set()
    await until(lambda: ended == ["m1", "m2", "m0"])


@pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
async def test_aclose_when_messages_run_and_wait_then_all_lanes_end(started: bool) -> None:
    record = Record(lambda _: asyncio.Event().wait())
    lanes = Lanes(record.work, 2, "test")
    lanes.put(many(5))
    if started:
        await until(lambda: record.at_once == 2)
    await lanes.aclose()
    assert (record.at_once, record.ended, lanes.busy) == (0, [], 0)


async def test_take_late_when_lanes_are_at_work_then_what_waits_for_long_and_no_sooner() -> None:
    gate = asyncio.Event()
    lanes = Lanes(Record(lambda _: gate.wait()).work, 2, "test")
    messages = many(5)
    for message in messages:
        message.claimed_at = 10.0
    lanes.put(messages[:1])
    await until(lambda: messages[0].task is not None)
    assert lanes.take_late(11.0) == []  # there are lanes to open
    lanes.put(messages[1:])
    await until(lambda: messages[1].task is not None)
    assert lanes.take_late(9.0) == []
    assert lanes.take_late(11.0) == messages[2:]
    assert lanes.take_late(11.0) == []
    gate.set()
    await until(lambda: lanes.busy == 0)
