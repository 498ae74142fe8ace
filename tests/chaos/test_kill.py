"""SIGKILL, SIGTERM and SIGSTOP of consumers under load."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.load import handled, held_by, now, ours, send, sending, settled
from tests.chaos.matrix import LONG, Row
from tests.chaos.servers import Valkey
from tests.waiting import until

LEASE_S = 15.0 if LONG else 2.0
ROUNDS = 6 if LONG else 2
ENVIRON = {"MQSERVICE_QUEUE__LEASE_S": str(LEASE_S)}


@contextmanager
def fleet(valkey: Valkey, ledger: Ledger, **environ: str) -> Iterator[Fleet]:
    """An empty fleet; SIGKILL for all that is left at the end."""
    with ExitStack() as stack:
        yield Fleet(valkey.url(), ledger, stack, **{**ENVIRON, **environ})


async def test_consumers_when_one_of_three_is_killed_in_a_loop_then_taken_over_within_lease_plus_1_s(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row(f"SIGKILL of one of three under load, {ROUNDS} times, lease {LEASE_S:g} s", LEASE_S + 1)
    with fleet(valkey, ledger) as consumers:
        async with ours(valkey.url(), ledger, consumers=False) as sender:
            for _ in range(3):
                await consumers.add()
            async with sending(sender, ledger, ms=100):
                for _ in range(ROUNDS):
                    victim = consumers.members[0].process.pid
                    await until(lambda victim=victim: held_by(valkey, ledger, victim), 20)  # type: ignore[misc]
                    await consumers.end(signal.SIGKILL)
                    killed_at = now()
                    held = held_by(valkey, ledger, victim)
                    figures.may_run_twice += len(held)
                    await consumers.add()
                    for n in held:
                        figures.going_again(await handled(ledger, n, killed_at))
            await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))


async def test_consumers_when_rolled_in_a_loop_then_no_attempt_is_used_and_nothing_runs_twice(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row(f"SIGTERM under load, rolling through three, {ROUNDS + 2} times: longest silence", 1.0)
    with fleet(valkey, ledger) as consumers:
        async with ours(valkey.url(), ledger, consumers=False) as sender:
            for _ in range(3):
                await consumers.add()
            async with sending(sender, ledger, ms=100):
                await until(lambda: ledger.handled_count() > 50)
                began_at = now()
                for _ in range(ROUNDS + 2):
                    await consumers.add()
                    ended = await consumers.end(signal.SIGTERM)
                    assert ended.process.returncode == 0, ended.err
                figures.going_again(ledger.longest_silence_s(began_at, now()))
            await settled(ledger, valkey)
    assert used_budgets(valkey, ledger) == set()
    with valkey.client() as client:
        figures.close(ledger.balance(client))


async def test_consumer_when_its_handlers_outlast_the_grace_then_given_back_at_once_with_no_attempt_used(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("SIGTERM, handlers outlast the grace: begun anew (from its end)", 1.0)
    with fleet(valkey, ledger, MQSERVICE_SERVICE__DRAIN_S="0.3") as consumers:
        async with ours(valkey.url(), ledger, consumers=False) as sender:
            victim = await consumers.add()
            for n in range(20):
                await send(sender, ledger, n, ms=3000)
            await until(lambda: ledger.started().total() == 20)
            await consumers.add()
            victim.signal(signal.SIGTERM)
            await asyncio.to_thread(victim.exit_code, 40)
            ended_at = now()
            await until(lambda: ledger.started().total() == 40, 10)
            figures.going_again(max(0.0, max(note.at for note in ledger.notes() if note.verb == "start") - ended_at))
            figures.may_run_twice = 20
            await settled(ledger, valkey)
    assert used_budgets(valkey, ledger) == set()
    with valkey.client() as client:
        figures.close(ledger.balance(client))


def used_budgets(valkey: Valkey, ledger: Ledger) -> set[str]:
    """Return the records that have an attempt or a crash on them."""
    with valkey.client() as client:
        records = list(client.scan_iter(match=f"{{{ledger.key}}}:m:*", count=1000))
        with client.pipeline(transaction=False) as pipeline:
            for key in records:
                pipeline.hmget(key, "attempts", "crashes")
            budgets = pipeline.execute()
    return {key for key, used in zip(records, budgets, strict=True) if any(used)}


async def test_consumer_when_stopped_for_longer_than_its_lease_then_taken_over_and_what_it_says_late_is_refused(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row(f"SIGSTOP of a consumer beyond its lease of {LEASE_S:g} s, then SIGCONT", LEASE_S + 1)
    with fleet(valkey, ledger) as consumers:
        async with ours(valkey.url(), ledger, consumers=False) as sender:
            victim = await consumers.add()
            for n in range(20):
                await send(sender, ledger, n, ms=500)
            await until(lambda: ledger.started().total() == 20)
            victim.signal(signal.SIGSTOP)
            stopped_at = now()
            held = held_by(valkey, ledger, victim.process.pid)
            assert held
            figures.may_run_twice = len(held)
            await consumers.add()
            await until(lambda: ledger.started().total() == 20 + len(held), LEASE_S + 5)
            again = [note.at for note in ledger.notes() if note.verb == "start" and note.pid != victim.process.pid]
            figures.going_again(max(again) - stopped_at)
            await settled(ledger, valkey)
            victim.signal(signal.SIGCONT)
            await until(lambda: any("stale receipt" in line or "lease lost" in line for line in victim.err), 10)
            async with sending(sender, ledger, start=1000):
                seen = {note.pid for note in ledger.notes() if note.at > stopped_at}
                await until(lambda: len({n.pid for n in ledger.notes() if n.n >= 1000} | seen) == 2, 20)
            await settled(ledger, valkey)
            with valkey.client() as client:
                assert ledger.counts(client)["done"] == ledger.acknowledged.total(), "each ended once"
    with valkey.client() as client:
        figures.close(ledger.balance(client))


async def test_loop_when_a_handler_blocks_it_for_longer_than_the_lease_then_nothing_runs_twice(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row(f"a handler blocks the loop for twice its lease of {LEASE_S:g} s", 2 * LEASE_S + 1)
    with fleet(valkey, ledger) as consumers:
        async with ours(valkey.url(), ledger, consumers=False) as sender:
            await consumers.add()
            for n in range(10):
                await send(sender, ledger, n, ms=300)
            await send(sender, ledger, 10, ms=2000 * LEASE_S, blocks=True)
            sent_at = now()
            await until(lambda: 10 in ledger.started(), 10)
            await consumers.add()
            figures.going_again(await handled(ledger, 10, sent_at))
            await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))
