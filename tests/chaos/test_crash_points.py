"""SIGKILL between any two steps of a process: its heir finds everything, and only what was in flight runs twice."""

import asyncio
import signal
from collections.abc import Callable
from http.client import HTTPException

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.load import held_by, now, ours, post, process, send, settled
from tests.chaos.matrix import Row
from tests.chaos.servers import Valkey
from tests.processes import serving
from tests.waiting import until

LEASE_S = 1.0
COUNT = 60
ENVIRON = {
    "MQSERVICE_QUEUE__LEASE_S": str(LEASE_S),
    "MQSERVICE_SERVICE__DRAIN_S": "0.2",
}

POINTS = {
    "before claim:2": 20,
    "after claim:2": 20,
    "in handler:7": 20,
    "before settle": 20,
    "after settle:2": 20,
    "before renew": 1500,
    "after renew": 1500,
    "before release": 3000,
    "after release": 3000,
}
"""Where it is killed, and how many ms its handlers take. The last two are reached by SIGTERM."""


@pytest.mark.parametrize("point", POINTS)
async def test_consumer_when_killed_between_two_steps_then_its_heir_goes_on_within_lease_plus_1_s(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row], point: str
) -> None:
    figures = row(f"SIGKILL between two steps, each of {len(POINTS)}, lease {LEASE_S:g} s", LEASE_S + 1)
    async with ours(valkey.url(), ledger, consumers=False) as sender:
        with process(valkey.url(), ledger, **ENVIRON) as heir:
            # The heir is up before the victim falls: its start is not what is measured. It joins when it may.
            await asyncio.to_thread(heir.started)
            heir.signal(signal.SIGSTOP)
            with process(
                valkey.url(), ledger, CHAOS_CRASH=point, MQSERVICE_QUEUE__CONCURRENCY="20", **ENVIRON
            ) as victim:
                for n in range(COUNT):
                    await send(sender, ledger, n, ms=POINTS[point] if n < 20 else 1)
                if point.endswith("release"):
                    await until(lambda: ledger.started().total() >= 20, 20)
                    victim.signal(signal.SIGTERM)
                code = await asyncio.to_thread(victim.exit_code, 20)
                assert code == -signal.SIGKILL, victim.err
                killed_at = now()
            held = held_by(valkey, ledger)
            # What was given back a moment before begins anew, as after any drain.
            figures.may_run_twice = len(held) or (20 if point == "after release" else 0)
            heir.signal(signal.SIGCONT)
            await until(lambda: settled_all(valkey, ledger), 20)
            again = [note for note in ledger.notes() if note.verb == "start" and note.at > killed_at]
            taken_over = [note.at for note in again if note.n in held] or [min(note.at for note in again)]
            figures.going_again(max(taken_over) - killed_at)
            await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))


def settled_all(valkey: Valkey, ledger: Ledger) -> bool:
    """Return whether every message is done."""
    with valkey.client() as client:
        return ledger.counts(client)["done"] == COUNT


@pytest.mark.parametrize("point", ["before send", "after send"])
async def test_web_process_when_killed_in_a_send_then_sending_again_elsewhere_does_not_double_it(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row], point: str
) -> None:
    figures = row("SIGKILL of the process that takes a send, sent again elsewhere", 1.0)
    app = ("--app", "tests.chaos.app:service", "--no-consumers")
    with (
        serving(valkey.url(), *app, CHAOS_LEDGER=str(ledger.path), CHAOS_CRASH=point) as victim,
        serving(valkey.url(), *app, CHAOS_LEDGER=str(ledger.path)) as other,
    ):
        await asyncio.to_thread(victim.started)
        await asyncio.to_thread(other.started)
        path = "/v1/queues/work/messages?id=n1"
        with pytest.raises((ConnectionError, HTTPException)):
            await asyncio.to_thread(post, victim.url + path, b"1")
        killed_at = now()
        assert await asyncio.to_thread(victim.exit_code) == -signal.SIGKILL
        assert await asyncio.to_thread(post, other.url + path, b"1") == 202
        figures.going_again(now() - killed_at)
        ledger.acknowledge(1)
    async with ours(valkey.url(), ledger):
        await settled(ledger, valkey)
    with valkey.client() as client:
        figures.close(ledger.balance(client))
