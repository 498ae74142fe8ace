"""The wall clocks of our processes are wrong, and jump: only the clock of Redis counts."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.chaos.load import handled, now, ours, process, send, settled
from tests.chaos.matrix import Row
from tests.chaos.servers import Valkey
from tests.waiting import until

CLOCK = str(Path(__file__).parent / "clock")
LEASE_S = 1.0
DAY_S = 86_400


async def test_clock_when_it_differs_by_days_and_jumps_then_leases_delays_and_retries_keep_their_times(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row], tmp_path: Path
) -> None:
    figures = row("wall clocks a day ahead and behind, jumping: a delay of 1 s", 2.0)
    environ = {"PYTHONPATH": CLOCK, "MQSERVICE_QUEUE__LEASE_S": str(LEASE_S)}
    files = [tmp_path / "ahead", tmp_path / "behind"]
    files[0].write_text(str(DAY_S))
    files[1].write_text(str(-DAY_S))
    async with ours(valkey.url(), ledger, consumers=False) as sender:
        with (
            process(valkey.url(), ledger, CHAOS_CLOCK=str(files[0]), **environ) as ahead,
            process(valkey.url(), ledger, CHAOS_CLOCK=str(files[1]), **environ) as behind,
        ):
            await asyncio.to_thread(ahead.started)
            await asyncio.to_thread(behind.started)
            for n in range(20):  # longer than the lease, which is renewed
                await send(sender, ledger, n, ms=2.5 * LEASE_S * 1000)
            await until(lambda: ledger.started().total() == 20)
            for file in files:  # in the middle of it they jump, each to the other's side
                file.write_text(str(-float(file.read_text())))
            sent_at = now()
            for n in range(20, 40):
                await send(sender, ledger, n, delay=1.0)
            for n in range(40, 60):
                await send(sender, ledger, n, fails=1, retry_s=1.0)
            for n in range(20, 60):
                took_s = await handled(ledger, n, sent_at)
                assert took_s >= 1.0, "neither a delay nor a retry is cut short"
                figures.going_again(took_s)
            await settled(ledger, valkey)
            assert {note.pid for note in ledger.notes()} == {ahead.process.pid, behind.process.pid}
    with valkey.client() as client:
        wall_clock_s = json.loads(client.hget(f"{{{ledger.key}}}:m:n40", "result"))["wall_clock_s"]
        assert abs(wall_clock_s - time.time()) > DAY_S / 2, "the clock that the handlers see was moved"
        noted_ms = json.loads(client.hget(f"{{{ledger.key}}}:m:n40", "history"))["at_ms"]
        assert abs(noted_ms / 1000 - time.time()) < 60, "attempts have the time of Redis"
        figures.close(ledger.balance(client, Counter(dict.fromkeys(range(40, 60), 2))))
