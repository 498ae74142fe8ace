"""A server that stops, dies, is full, or does not want to: everything goes on when it is well again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mqservice.errors import OutOfMemory, Unavailable
from tests.chaos.ledger import Ledger
from tests.chaos.load import handled, now, ours, send, sending, settled, started_after
from tests.chaos.matrix import LONG, Row
from tests.chaos.servers import Valkey
from tests.waiting import until, wait_for

DRAINING = 200
"""Messages with which it is full."""


async def outage(
    valkey: Valkey, ledger: Ledger, figures: Row, ail: Callable[[], Awaitable[None]], url: str = ""
) -> None:
    """Send and handle, let it ail, and measure from its end until a message is handled that was sent after it."""
    async with ours(url or valkey.url(), ledger) as service:
        async with sending(service, ledger):
            await until(lambda: ledger.handled_count() >= 50)
            await ail()
            well_at = now()
            figures.going_again(await started_after(ledger, well_at))
        await send(service, ledger, 1_000_000)
        await handled(ledger, 1_000_000, now())
        await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))


async def stays_silent(ledger: Ledger) -> None:
    """Wait until what was on its way has ended."""
    silent_since = now()
    seen = ledger.handled_count()

    def silent() -> bool:
        nonlocal silent_since, seen
        if ledger.handled_count() > seen:
            silent_since, seen = now(), ledger.handled_count()
        return now() - silent_since > 1.0

    await until(silent, 10)


async def test_server_when_stopped_for_10_s_then_going_again_within_5_s(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    async def stop() -> None:
        valkey.stop()
        stopped_at = now()
        await until(lambda: now() - stopped_at >= 10, 11)
        valkey.cont()

    await outage(valkey, ledger, row("server stopped 10 s (from its end)", 5.0), stop)


async def test_server_when_killed_and_restarted_on_its_file_then_going_again_within_5_s(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    async def kill() -> None:
        for _ in range(5 if LONG else 2):
            valkey.restart()
            seen = ledger.handled_count()
            await until(lambda seen=seen: ledger.handled_count() >= seen + 20, 20)  # type: ignore[misc]
        valkey.restart()

    await outage(valkey, ledger, row("server killed and restarted on its append-only file", 5.0), kill)


async def test_server_when_paused_or_asleep_then_going_again_within_5_s(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    async def doze() -> None:
        valkey.pause_clients(2.0)
        await asyncio.to_thread(wait_for, valkey.answers, 10)
        await asyncio.to_thread(valkey.sleep, 2.0)

    await outage(valkey, ledger, row("CLIENT PAUSE 2 s, DEBUG SLEEP 2 s", 5.0), doze)


async def test_server_when_it_refuses_writes_then_going_again_within_5_s(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    async def refuse() -> None:
        valkey.read_only(True)
        await stays_silent(ledger)
        valkey.read_only(False)

    await outage(valkey, ledger, row("server without its replica (NOREPLICAS), from its end", 5.0), refuse)


async def test_disk_when_full_then_sends_are_refused_and_going_again_within_5_s(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("disk full (append-only file), from its end", 5.0)

    async with ours(valkey.url(), ledger, consumers=False) as sender:

        async def fill() -> None:
            valkey.fill_disk()
            await until(lambda: valkey.info("persistence")["aof_last_write_status"] == "err", 15)
            await stays_silent(ledger)
            with pytest.raises(Unavailable, match="MISCONF"):
                await sender.send("work", {"n": -1})
            valkey.free_disk()
            await until(lambda: valkey.info("persistence")["aof_last_write_status"] == "ok", 10)

        await outage(valkey, ledger, figures, fill)


async def test_memory_when_full_then_sends_are_refused_and_all_that_is_queued_drains(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("memory full: what is queued drains", 5.0)
    async with ours(valkey.url(), ledger) as service:
        for n in range(DRAINING):
            await send(service, ledger, n, delay=0.5)
        valkey.fill_memory()
        full_at = now()
        assert ledger.handled_count() < DRAINING
        with pytest.raises(OutOfMemory):
            await service.send("work", {"n": -1})
        await until(lambda: ledger.handled_count() == DRAINING, 20)
        figures.going_again(now() - full_at)
        await settled(ledger, valkey)
        valkey.free_memory()
        await send(service, ledger, DRAINING)
        await handled(ledger, DRAINING, now())
        await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))


async def test_memory_when_full_then_a_process_can_start_and_drain(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("memory full: a process that starts drains what is queued", 5.0)
    async with ours(valkey.url(), ledger, consumers=False) as sender:
        for n in range(DRAINING):
            await send(sender, ledger, n)
    valkey.fill_memory()
    full_at = now()
    async with ours(valkey.url(), ledger):
        await until(lambda: ledger.handled_count() == DRAINING, 20)
        figures.going_again(now() - full_at)
        await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))
