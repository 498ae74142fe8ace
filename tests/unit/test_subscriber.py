"""The subscriber: order, failures, the bound of its backlog, and its end."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from mqservice.handlers import Registry
from mqservice.message import Message
from mqservice.subscriber import Subscriber
from tests.waiting import until


def following(function: Callable[..., Any]) -> Subscriber:
    registry = Registry()
    registry.subscriber("prices.*")(function)
    return Subscriber(registry.subscribers[0])


async def test_run_when_messages_come_then_each_is_handed_over_with_its_channel() -> None:
    seen = []

    async def on_price(price: dict[str, int], message: Message) -> None:
        seen.append((price, message.queue, message.id))

    subscriber = following(on_price)
    subscriber.deliver("prices.eur", b'{"a": 1}')
    subscriber.deliver("prices.usd", b'{"a": 2}')
    subscriber.stop()
    await subscriber.run()
    assert [(price, channel) for price, channel, _ in seen] == [({"a": 1}, "prices.eur"), ({"a": 2}, "prices.usd")]
    assert len({message_id for _, _, message_id in seen}) == 2


async def test_run_when_the_function_suspends_then_the_next_waits_and_order_is_kept() -> None:
    seen: list[str] = []
    gates = {number: asyncio.Event() for number in range(3)}

    async def on_price(number: int) -> None:
        seen.append(f"begin {number}")
        await gates[number].wait()
        seen.append(f"end {number}")

    subscriber = following(on_price)
    running = asyncio.create_task(subscriber.run(), name="subscriber")
    for number in range(3):
        subscriber.deliver("prices", b"%d" % number)
    await until(lambda: seen)
    gates[2].set()
    gates[1].set()
    await until(lambda: not running.done())
    assert seen == ["begin 0"]
    gates[0].set()
    subscriber.stop()
    await running
    assert seen == [f"{what} {number}" for number in range(3) for what in ("begin", "end")]


async def test_run_when_the_function_is_plain_then_it_is_called_in_order_too() -> None:
    seen = []

    def on_price(number: int) -> None:
        seen.append(number)

    subscriber = following(on_price)
    for number in range(20):
        subscriber.deliver("prices", b"%d" % number)
    subscriber.stop()
    await subscriber.run()
    assert seen == list(range(20))


async def test_run_when_the_function_raises_then_it_is_logged_and_called_again() -> None:
    seen = []

    async def on_price(number: int) -> None:
        seen.append(number)
        if number == 1:
            raise ValueError("one is too few")

    subscriber = following(on_price)
    for number in range(3):
        subscriber.deliver("prices.eur", b"%d" % number)
    subscriber.stop()
    with capture_logs() as logs:
        await subscriber.run()
    assert seen == [0, 1, 2]
    (line,) = logs
    assert (line["event"], line["channel"], line["log_level"]) == ("subscriber failed", "prices.eur", "error")
    assert "one is too few" in line["error"]


async def test_run_when_a_body_does_not_fit_then_it_is_logged_without_the_body_and_the_next_is_handled() -> None:
    seen = []

    async def on_price(number: int) -> None:
        seen.append(number)

    subscriber = following(on_price)
    for body in (b'"secret"', b"{", b"\xff", b"2"):
        subscriber.deliver("prices", body)
    subscriber.stop()
    with capture_logs() as logs:
        await subscriber.run()
    assert seen == [2]
    assert [line["event"] for line in logs] == ["undecodable"] * 3
    assert "secret" not in str(logs)


async def test_run_when_the_function_raises_cancelled_error_by_itself_then_it_is_called_again() -> None:
    seen = []

    async def on_price(number: int) -> None:
        seen.append(number)
        if number == 0:
            raise asyncio.CancelledError

    subscriber = following(on_price)
    subscriber.deliver("prices", b"0")
    subscriber.deliver("prices", b"1")
    subscriber.stop()
    with capture_logs():
        await asyncio.wait([asyncio.create_task(subscriber.run(), name="subscriber")])
    assert seen == [0, 1]


async def test_run_when_the_function_exits_then_the_process_does_not_and_it_is_called_again() -> None:
    seen = []

    async def on_price(number: int) -> None:
        seen.append(number)
        if number == 0:
            sys.exit("no")

    subscriber = following(on_price)
    subscriber.deliver("prices", b"0")
    subscriber.deliver("prices", b"1")
    subscriber.stop()
    with capture_logs():
        try:
            await subscriber.run()
        except SystemExit:
            pytest.fail("SystemExit left run()")
    assert seen == [0, 1]


async def test_run_when_cancelled_from_outside_then_it_ends_as_cancelled() -> None:
    begun = asyncio.Event()

    async def on_price(number: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    subscriber = following(on_price)
    subscriber.deliver("prices", b"0")
    running = asyncio.create_task(subscriber.run(), name="subscriber")
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_deliver_when_the_backlog_is_full_then_the_newest_are_dropped_counted_and_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mqservice.subscriber.BACKLOG", 3)
    seen = []

    async def on_price(number: int) -> None:
        seen.append(number)

    subscriber = following(on_price)
    with capture_logs() as logs:
        for number in range(5):
            subscriber.deliver("prices", b"%d" % number)
    assert subscriber.dropped == 2
    assert [line["event"] for line in logs] == ["subscriber too slow"]
    subscriber.stop()
    await subscriber.run()
    assert seen == [0, 1, 2]


async def test_deliver_when_there_is_room_again_then_messages_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqservice.subscriber.BACKLOG", 1)
    seen = []

    async def on_price(number: int) -> None:
        seen.append(number)

    subscriber = following(on_price)
    with capture_logs():
        subscriber.deliver("prices", b"0")
        subscriber.deliver("prices", b"1")
    running = asyncio.create_task(subscriber.run(), name="subscriber")
    await until(lambda: seen)
    subscriber.deliver("prices", b"2")
    await until(lambda: len(seen) == 2)
    subscriber.stop()
    await running
    assert seen == [0, 2]
    assert subscriber.dropped == 1


async def test_stop_when_called_before_run_and_twice_then_run_returns_at_once() -> None:
    subscriber = following(lambda body: pytest.fail("called"))
    subscriber.stop()
    subscriber.stop()
    await subscriber.run()


async def test_stop_when_called_then_what_waits_is_handled_and_nothing_new_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mqservice.subscriber.BACKLOG", 1)
    seen = []

    async def on_price(number: int) -> None:
        seen.append(number)

    subscriber = following(on_price)
    subscriber.deliver("prices", b"0")
    subscriber.stop()
    subscriber.deliver("prices", b"1")
    await subscriber.run()
    assert seen == [0]
    assert subscriber.dropped == 0


async def test_stop_when_run_waits_for_messages_then_run_returns() -> None:
    subscriber = following(lambda body: None)
    running = asyncio.create_task(subscriber.run(), name="subscriber")
    await until(lambda: running in asyncio.all_tasks())
    subscriber.stop()
    subscriber.stop()
    await running
