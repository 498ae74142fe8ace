"""Connections that break under load: the network cuts them, the server closes them, or they are slow."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.load import handled, now, ours, send, sending, settled
from tests.chaos.matrix import LONG, Row
from tests.chaos.proxy import Action, Proxy
from tests.chaos.servers import Valkey
from tests.waiting import until

SECONDS = 10.0


async def through(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, figures: Row, harm: Callable[[], Awaitable[None]]
) -> None:
    """Send and handle while `harm()` goes on; the longest silence from its start is the time to go on again."""
    async with ours(proxy.url(), ledger) as service:
        async with sending(service, ledger):
            await until(lambda: ledger.handled_count() >= 50)
            began_at = now()
            await harm()
            seen = ledger.handled_count()
            await until(lambda: ledger.handled_count() >= seen + 50, 20)
            ended_at = now()
        await settled(ledger, valkey)
    figures.going_again(ledger.longest_silence_s(began_at, ended_at))
    with valkey.client() as client:
        figures.close(ledger.balance(client))


@pytest.mark.parametrize("how", ["RST", "FIN", "FIN to the client alone"])
async def test_connections_when_cut_under_load_then_going_again_within_5_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row], how: str
) -> None:
    async def cut_ten_times() -> None:
        for _ in range(10):
            seen = ledger.handled_count()
            if how == "FIN to the client alone":
                proxy.half_close()
            else:
                proxy.cut(reset=how == "RST")
            await until(lambda seen=seen: ledger.handled_count() >= seen + 10, 20)  # type: ignore[misc]

    await through(valkey, proxy, ledger, row(f"all connections cut 10 times by {how}", 5.0), cut_ten_times)


async def test_connections_when_killed_every_100_ms_for_10_s_then_going_again_within_5_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row]
) -> None:
    async def kill() -> None:
        until_s = now() + SECONDS
        while now() < until_s:
            valkey.kill_clients()
            await asyncio.sleep(0.1)

    await through(valkey, proxy, ledger, row("CLIENT KILL of every connection, every 100 ms for 10 s", 5.0), kill)


async def test_connections_when_the_server_closes_idle_ones_after_1_s_then_going_again_within_5_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("server's timeout 1", 5.0)
    valkey.command("CONFIG", "SET", "timeout", "1")
    valkey.command("CONFIG", "SET", "loglevel", "verbose")
    async with ours(proxy.url(), ledger) as service:
        await asyncio.gather(*(service.publish("nobody", n) for n in range(16)))  # as many connections as there may be
        await until(lambda: valkey.log().count("Closing idle client") >= 14, 20)
        sent_at = now()
        await asyncio.gather(*(send(service, ledger, n) for n in range(100)))
        for n in range(100):
            figures.going_again(await handled(ledger, n, sent_at))
        await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))


@pytest.mark.parametrize("action", ["lose reply", "cut reply", "cut request", "duplicate"])
async def test_replies_when_many_of_each_script_are_harmed_under_load_then_going_again_within_5_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row], action: Action
) -> None:
    async def harm() -> None:
        for _ in range(20 if LONG else 5):
            for script in ("send", "claim", "settle"):
                rule = proxy.on(script, action)
                await until(lambda rule=rule: rule.happened, 10)  # type: ignore[misc]
                seen = ledger.handled_count()
                await until(lambda seen=seen: ledger.handled_count() >= seen + 5, 10)  # type: ignore[misc]

    times = 60 if LONG else 15
    await through(valkey, proxy, ledger, row(f"{action}: {times} times under load", 5.0), harm)


@pytest.mark.parametrize("script", ["send", "claim", "settle"])
async def test_reply_when_it_never_comes_under_load_then_going_again_within_5_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row], script: str
) -> None:
    async def harm() -> None:
        rule = proxy.on(script, "drop reply")
        await until(lambda: rule.happened, 30)

    await through(valkey, proxy, ledger, row("drop reply: one under load, with default deadlines", 5.0), harm)


async def test_connections_when_slow_then_nothing_fails(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row]
) -> None:
    async def slow() -> None:
        proxy.delay_s, proxy.bytes_per_s = 0.1, 20_000
        seen = ledger.handled_count()
        await until(lambda: ledger.handled_count() >= seen + 100, 20)
        proxy.delay_s, proxy.bytes_per_s = 0.0, 0

    await through(valkey, proxy, ledger, row("every packet 0.1 s late, 20 kB/s", 5.0), slow)
