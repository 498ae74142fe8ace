"""Mixed load and random faults, all from one seed: `make soak`, or `python -m tests.chaos.soak --seconds 600 --seed 7`.

Three processes consume and one loop sends, through a proxy. One fault follows the other, each healed and something
handled since before the next (but a stopped consumer, which may stay stopped meanwhile). So no silence is the work of
two faults, and the longest tells how long one takes to get over. In the end the books are closed.
"""

import argparse
import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

import redis
import uvloop

from mqservice import Service
from mqservice.errors import Unavailable
from mqservice.message import Outgoing
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Balance, Ledger
from tests.chaos.load import held_by, now, ours, send, settled
from tests.chaos.proxy import Action, Proxy
from tests.chaos.servers import Valkey, temporary
from tests.waiting import until

LEASE_S = 15.0
LONGEST_FAULT_S = 3.0
SILENCE_S = LONGEST_FAULT_S + 5.0
"""The longest silence that is allowed: the longest fault, and the time to go on again."""


@dataclass
class Summary:
    """What a soak came to."""

    seed: int
    seconds: float
    faults: Counter[str]
    balance: Balance
    may_run_twice: int
    longest_silence_s: float

    @property
    def good(self) -> bool:
        """Nothing lost, nothing run twice that was not in flight in a process that fell, no silence too long."""
        return (
            not self.balance.lost
            and self.balance.twice <= self.may_run_twice
            and self.balance.sum_holds
            and self.longest_silence_s <= SILENCE_S
        )

    def lines(self) -> list[str]:
        """Return the summary as people read it."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return [
            f"seed {self.seed}, {self.seconds:.0f} s: {self.balance.acknowledged} messages, "
            f"{self.faults.total()} faults",
            f"lost {len(self.balance.lost)}, twice {self.balance.twice} of {self.may_run_twice} in flight in processes "
            f"that fell, longest silence {self.longest_silence_s:.1f} s of {SILENCE_S:g} s",
            f"sent {self.balance.sent} = {' + '.join(f'{n} {state}' for state, n in self.balance.counts.items() if n)}",
            f"faults: {kinds}",
        ]


@dataclass
class Load:
    """Sends all kinds of messages for as long as it runs."""

    service: Service
    valkey: Valkey
    ledger: Ledger
    random: random.Random
    runs_wished: Counter[int] = field(default_factory=Counter)
    _next: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Send for the length of the block, then wait until each send is acknowledged."""
        sending = asyncio.create_task(self._go_on(), name="load")
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            await asyncio.wait_for(asyncio.gather(*self._tasks), 60)

    async def _go_on(self) -> None:
        kinds = (self._plain, self._delayed, self._failing, self._rejected, self._batch, self._raw, self._cancelled)
        while True:
            (kind,) = self.random.choices(kinds, weights=(60, 10, 10, 2, 3, 10, 5))
            task = asyncio.create_task(kind(), name=kind.__name__)
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            await asyncio.sleep(self.random.expovariate(1 / 0.02))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._tasks.discard(task)  # one that failed stays, to be raised at the end

    def _number(self) -> int:
        self._next += 1
        return self._next

    async def _plain(self) -> None:
        await send(self.service, self.ledger, self._number(), ms=self.random.randint(1, 400))

    async def _delayed(self) -> None:
        await send(self.service, self.ledger, self._number(), delay=self.random.uniform(0.1, 3.0))

    async def _failing(self) -> None:
        n, fails = self._number(), self.random.randint(1, 3)
        self.runs_wished[n] = fails + 1
        await send(self.service, self.ledger, n, fails=fails, retry_s=self.random.uniform(0.1, 1.0))

    async def _rejected(self) -> None:
        await send(self.service, self.ledger, self._number(), reject=True)

    async def _batch(self) -> None:
        numbers = [self._number() for _ in range(20)]
        messages = [Outgoing(f"n{n}", b"%d" % n) for n in numbers]
        while True:
            try:
                await self.service._running().backend.broker("work").send_many(messages)
            except Unavailable:
                continue
            self.ledger.acknowledge(*numbers)
            return

    async def _raw(self) -> None:
        n = self._number()
        try:
            await asyncio.to_thread(self._rpush, n)
        except (redis.RedisError, OSError):
            return  # nobody told it that Redis has it, so nobody may count on it
        self.ledger.acknowledge(n)

    def _rpush(self, n: int) -> None:
        with self.valkey.client() as client:
            client.rpush(self.ledger.key, n)

    async def _cancelled(self) -> None:
        n = self._number()
        await send(self.service, self.ledger, n, delay=2.0)
        try:
            await self.service._running().backend.operations("work").cancel(f"n{n}")
        except Unavailable:
            return  # then it runs


class Faults:
    """Everything that can go wrong, and its end."""

    def __init__(self, valkey: Valkey, proxy: Proxy, fleet: Fleet, ledger: Ledger, dice: random.Random) -> None:
        self._valkey, self._proxy, self._fleet, self._ledger, self._random = valkey, proxy, fleet, ledger, dice
        self._frozen: set[asyncio.Task[None]] = set()
        self.happened: Counter[str] = Counter()
        self.may_run_twice = 0

    async def go_on(self, until_s: float) -> None:
        """Let one fault follow the other until then, and end the last."""
        faults: dict[str, Callable[[], Awaitable[None]]] = {
            "connections swallowed": self._swallow,
            "connections cut": self._cut,
            "connections refused": self._refuse,
            "replies harmed": self._harm,
            "slow network": self._slow,
            "CLIENT KILL": self._kill_clients,
            "CLIENT PAUSE": self._pause,
            "server stopped": self._stop,
            "server killed": self._restart,
            "memory full": self._fill_memory,
            "disk full": self._fill_disk,
            "no replica": self._read_only,
            "consumer SIGKILL": self._kill_consumer,
            "consumer SIGTERM": self._roll_consumer,
            "consumer SIGSTOP": self._freeze_consumer,
        }
        bag: list[str] = []
        while now() < until_s:
            if not bag:  # each once before any twice, so that a minute has them all
                bag = list(faults)
                self._random.shuffle(bag)
            kind = bag.pop()
            self.happened[kind] += 1
            await faults[kind]()
            await self._going_again()
            await asyncio.sleep(self._random.uniform(0.5, 2.0))
        if self._frozen:
            await asyncio.wait(self._frozen)

    async def _going_again(self) -> None:
        """Wait until something is handled, if not for ever: the longest silence tells of it."""
        noted = self._ledger.size
        with suppress(AssertionError):
            await until(lambda: self._ledger.size > noted, LEASE_S)

    async def _last(self) -> None:
        """Let a fault last."""
        await asyncio.sleep(self._random.uniform(0.2, LONGEST_FAULT_S))

    async def _swallow(self) -> None:
        self._proxy.swallow()

    async def _cut(self) -> None:
        self._proxy.cut(reset=self._random.random() < 0.5)

    async def _refuse(self) -> None:
        self._proxy.refusing = True
        self._proxy.cut()
        await self._last()
        self._proxy.refusing = False

    async def _harm(self) -> None:
        actions: list[Action] = ["drop reply", "lose reply", "cut reply", "cut request", "duplicate"]
        for _ in range(5):
            self._proxy.on(self._random.choice(("send", "claim", "settle", "renew")), self._random.choice(actions))

    async def _slow(self) -> None:
        self._proxy.delay_s, self._proxy.bytes_per_s = 0.2, 100_000
        await self._last()
        self._proxy.delay_s, self._proxy.bytes_per_s = 0.0, 0

    async def _kill_clients(self) -> None:
        for _ in range(5):
            await asyncio.to_thread(self._valkey.kill_clients)
            await asyncio.sleep(0.1)

    async def _pause(self) -> None:
        await asyncio.to_thread(self._valkey.pause_clients, self._random.uniform(0.2, LONGEST_FAULT_S))

    async def _stop(self) -> None:
        self._valkey.stop()
        await self._last()
        self._valkey.cont()

    async def _restart(self) -> None:
        await asyncio.to_thread(self._valkey.restart)

    async def _fill_memory(self) -> None:
        await asyncio.to_thread(self._valkey.fill_memory)
        await self._last()
        await asyncio.to_thread(self._valkey.free_memory)

    async def _fill_disk(self) -> None:
        await asyncio.to_thread(self._valkey.fill_disk)
        await self._last()
        self._valkey.free_disk()
        await until(lambda: self._valkey.info("persistence")["aof_last_write_status"] == "ok", 10)

    async def _read_only(self) -> None:
        await asyncio.to_thread(self._valkey.read_only, True)
        await self._last()
        await asyncio.to_thread(self._valkey.read_only, False)

    async def _kill_consumer(self) -> None:
        victim = await self._fleet.end(signal.SIGKILL)
        self._count_held(victim.process.pid)
        await self._fleet.add()

    async def _roll_consumer(self) -> None:
        await self._fleet.add()
        ended = await self._fleet.end(signal.SIGTERM)
        assert ended.process.returncode == 0, ended.err

    async def _freeze_consumer(self) -> None:
        if self._frozen:
            return
        victim = self._fleet.members.pop(0)
        victim.signal(signal.SIGSTOP)
        self._count_held(victim.process.pid)

        async def thaw() -> None:
            await asyncio.sleep(self._random.uniform(1.0, LEASE_S + 5.0))
            victim.signal(signal.SIGCONT)
            self._fleet.members.append(victim)

        task = asyncio.create_task(thaw(), name="thaw")
        self._frozen.add(task)
        task.add_done_callback(self._frozen.discard)

    def _count_held(self, pid: int) -> None:
        self.may_run_twice += len(held_by(self._valkey, self._ledger, pid))


async def soak(directory: Path, seconds: float, seed: int) -> Summary:
    """Run a soak; the server and the ledger are kept in `directory`."""
    ledger = Ledger(directory / "ledger")
    with Valkey(directory / "server") as valkey, Proxy(valkey.socket) as proxy, ExitStack() as stack:
        fleet = Fleet(proxy.url(), ledger, stack, MQSERVICE_QUEUE__LEASE_S=str(LEASE_S))
        for _ in range(3):
            await fleet.add()
        async with ours(proxy.url(), ledger, consumers=False) as sender:
            load = Load(sender, valkey, ledger, random.Random(seed))
            faults = Faults(valkey, proxy, fleet, ledger, random.Random(seed))
            async with load.going():
                await until(lambda: ledger.handled_count() > 20, 20)
                began_at = now()
                await faults.go_on(began_at + seconds)
                ended_at = now()
            await settled(ledger, valkey, 90)
        with valkey.client() as client:
            balance = ledger.balance(client, load.runs_wished)
    silence_s = ledger.longest_silence_s(began_at, ended_at)
    return Summary(seed, ended_at - began_at, faults.happened, balance, faults.may_run_twice, silence_s)


def main() -> int:
    """Run it from the command line; exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="mixed load and random faults")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    wish = parser.parse_args()
    directory = temporary("soak")
    print(f"seed {wish.seed}, {wish.seconds:.0f} s, in {directory}", file=sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        summary = runner.run(soak(directory, wish.seconds, wish.seed))
    print("\n".join(summary.lines()))
    if summary.good:
        rmtree(directory)
    return 0 if summary.good else 1


if __name__ == "__main__":
    sys.exit(main())
