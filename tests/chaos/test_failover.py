"""A replica is promoted and the old primary comes back as its replica; the address stays, as behind a load balancer."""

import asyncio
import shutil
from collections.abc import Callable, Iterator

import pytest

from mqservice.errors import Unavailable
from tests.chaos.ledger import Ledger
from tests.chaos.load import now, ours, send, sending, settled, started_after
from tests.chaos.matrix import Row
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Valkey, temporary
from tests.waiting import until, wait_for

LAG_S = 4.0


@pytest.fixture
def pair() -> Iterator[tuple[Valkey, Valkey]]:
    """A primary and its replica, in sync."""
    directory = temporary("failover")
    at_once = ("--repl-diskless-sync-delay", "0")
    with Valkey(directory / "a", *at_once, tcp=True) as primary, Valkey(directory / "b", *at_once, tcp=True) as replica:
        replica.follow(primary)
        wait_for(lambda: replica.in_sync_with(primary), 20)
        yield primary, replica
    shutil.rmtree(directory)


async def test_primary_when_it_hands_over_under_load_then_going_again_within_5_s(
    pair: tuple[Valkey, Valkey], ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("failover by hand-over, the old primary stays up as a replica", 5.0)
    primary, replica = pair
    with Proxy(primary.socket) as proxy:
        async with ours(proxy.url(), ledger) as service:
            async with sending(service, ledger):
                await until(lambda: ledger.handled_count() >= 50)
                # What Sentinel and FAILOVER do: no more writes, wait for the replica, change places.
                primary.command("CLIENT", "PAUSE", "10000", "WRITE")
                await until(lambda: replica.in_sync_with(primary), 10)
                replica.follow(None)
                proxy.upstream = replica.socket
                primary.follow(replica)
                primary.command("CLIENT", "UNPAUSE")
                handed_over_at = now()
                figures.going_again(await started_after(ledger, handed_over_at))
                seen = ledger.handled_count()
                await until(lambda: ledger.handled_count() >= seen + 200, 30)
            await settled(ledger, replica)
    with replica.client() as client:
        figures.close(ledger.balance(client))


async def test_primary_when_killed_and_back_as_a_replica_then_going_again_within_5_s(
    pair: tuple[Valkey, Valkey], ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("failover by SIGKILL of a primary in sync, back as a replica", 5.0)
    primary, replica = pair
    with Proxy(primary.socket) as proxy:
        async with ours(proxy.url(), ledger) as service:
            for n in range(200):
                await send(service, ledger, n, delay=1.0 if n % 2 else 0.0)
            await until(lambda: replica.in_sync_with(primary), 10)
            primary.kill()
            killed_at = now()
            replica.follow(None)
            proxy.upstream = replica.socket
            primary.start()
            primary.follow(replica)
            async with sending(service, ledger, start=1000):
                figures.going_again(await started_after(ledger, killed_at))
            await settled(ledger, replica)
    with replica.client() as client:
        balance = ledger.balance(client)
    # What the last moments had done is done again where the replica had not heard of it.
    figures.may_run_twice = balance.twice
    figures.close(balance)


@pytest.mark.parametrize("replicas", [0, 1])
async def test_primary_when_killed_while_its_replica_lags_then_no_more_is_lost_than_was_not_copied(
    pair: tuple[Valkey, Valkey], ledger: Ledger, record_property: Callable[[str, object], None], replicas: int
) -> None:
    primary, replica = pair
    primary.command("CONFIG", "SET", "min-replicas-max-lag", "1")
    primary.command("CONFIG", "SET", "min-replicas-to-write", str(replicas))
    with Proxy(primary.socket) as proxy:
        async with ours(proxy.url(), ledger, consumers=False) as service:
            await send(service, ledger, 0)
            await until(lambda: replica.in_sync_with(primary), 10)
            replica.stop()  # the link stays open, and nothing arrives
            silent_at = taken_at = now()
            n, refused = 0, False
            while now() - silent_at < LAG_S and not refused:
                n += 1
                try:
                    await service.send("work", n, id=f"n{n}")
                except Unavailable:
                    refused = True
                else:
                    taken_at = now()
                    ledger.acknowledge(n)
                await asyncio.sleep(0.02)
            primary.kill()
            replica.restart()  # on its own file, and as a primary: nobody tells it otherwise
            proxy.upstream = replica.socket
            await send(service, ledger, 1_000_000)
    with replica.client() as client:
        balance = ledger.balance(client)
    lost = len(balance.lost)
    assert set(balance.lost) <= set(range(1, n + 1)), "only what was acknowledged while the replica was silent"
    if replicas:
        assert refused, "without its replica the primary takes no more sends"
        text = f"min-replicas-to-write 1 and -max-lag 1: {lost} lost, the sends of {taken_at - silent_at:.1f} s"
    else:
        text = f"asynchronous replication: {lost} lost, all sends of the {LAG_S:g} s before"
    record_property("note", f"edge: primary killed while its replica was silent, {text}")
