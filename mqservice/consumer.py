"""The consumer: claims messages of one queue, runs them through the executor, settles what they came to.

Run by the service as one watched task. A slot first, then a claim: what is claimed is started at once. `stop()` only
sets events, `run()` does the waiting. A broken Redis is waited for; an error of our own ends `run()` with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from mqservice.broker import Broker, claim_token
from mqservice.errors import Misconfigured, MqError, Unavailable, WrongType
from mqservice.message import Cancelled, Claimed, Outcome, Receipt
from mqservice.retry import Backoff

log = structlog.get_logger()

Execute = Callable[[Claimed], Awaitable[Outcome]]

Overdue = Callable[[Claimed], Outcome]

OUTAGES = (Unavailable, Misconfigured, WrongType)
"""What a loop waits out: it may be mended while we run."""

_STUBBORN_S = 2.0
"""How long a cancelled handler may take to end before it is reported and left behind."""

_RENEW_BATCH = 500


@dataclass(eq=False)
class Held:
    """A message this consumer holds the lease of."""

    claimed: Claimed
    started_at: float
    """By the loop's clock."""
    task: asyncio.Task[None] | None = None
    settling: bool = False
    given_up: bool = False
    """The lease is lost or given back: whatever the handler still does no longer counts."""
    cancelled: bool = False
    """Somebody cancelled the message, and its coroutine has been told."""
    slot_freed: bool = False

    @property
    def receipt(self) -> Receipt:
        """What proves the lease."""
        return self.claimed.receipt


class Consumer:
    """Takes the messages of one queue, `concurrency` at a time, and hands them to `execute`.

    `name` is unique among all consumers that use this Redis: the claims are replayed by it. `overdue` tells what
    becomes of a message whose handler ignores that its time is over; without it, nothing is done about those.
    """

    def __init__(self, broker: Broker, execute: Execute, name: str, overdue: Overdue | None = None) -> None:
        self._broker, self._execute, self.name = broker, execute, name
        self._overdue = overdue
        self._queue = broker.queue
        self._bell = broker.bell()
        self._held: dict[Receipt, Held] = {}
        self._running = 0
        self._slot_free = asyncio.Event()
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._fault: BaseException | None = None

    @property
    def held(self) -> int:
        """Messages whose lease this consumer holds."""
        return len(self._held)

    @property
    def list_key(self) -> str:
        """The ready list it consumes."""
        return self._queue.key

    def stop(self) -> None:
        """Take nothing new. `run()` returns when what is held has been settled. Works before start and twice."""
        self._stopping.set()
        self._slot_free.set()
        self._bell.silence()

    async def run(self) -> None:
        """Claim, run and settle until stopped. Raises what went wrong with our own code, never Redis's outages."""
        renewal = asyncio.create_task(self._renew_leases(), name=f"leases {self.name}")
        claims = asyncio.create_task(self._claim_until_stopped(), name=f"claims {self.name}")
        try:
            await asyncio.wait({renewal, claims}, return_when=asyncio.FIRST_COMPLETED)
            if renewal.done():
                renewal.result()
            await claims
            while self._held and self._fault is None:
                self._idle.clear()
                await self._idle.wait()
            if self._fault is not None:
                raise self._fault
        finally:
            for task in (renewal, claims):
                task.cancel()
            await asyncio.wait({renewal, claims})
            await self._bell.aclose()

    def cancel(self, message_id: str) -> None:
        """Cancel the coroutine of a message that this consumer holds; its outcome is then Cancelled."""
        for receipt, held in self._held.items():
            if receipt.id == message_id and held.task is not None and not held.settling and not held.cancelled:
                held.cancelled = True
                held.task.cancel()

    async def abandon(self) -> None:
        """Cancel what still runs and give it back with no attempt used. Call after `stop()`."""
        running = [held for held in self._held.values() if not held.settling]
        await self._cancel(running)
        if running:
            await self._broker.release([held.receipt for held in running])
            log.info("released", queue=self._queue.name, count=len(running))

    # Claiming

    async def _claim_until_stopped(self) -> None:
        token, backoff = claim_token(), Backoff()
        while not self._stopping.is_set():
            room = await self._room()
            try:
                claim = await self._broker.claim(token, self.name, room)
                backoff.reset()
                token = claim_token()
                if self._stopping.is_set():
                    await self._broker.release([message.receipt for message in claim.messages])
                    break
                for message in claim.messages:
                    self._start(message)
                if len(claim.messages) < room:
                    await self._bell.wait(claim.next_due_s)
            except OUTAGES as error:
                await self._wait_out(error, backoff)
        await self._pass_the_bell_on()

    async def _room(self) -> int:
        """Wait for a free slot and return how many there are. Settles under way hold back as many again."""
        slots = self._queue.concurrency
        while not self._stopping.is_set():
            room = min(slots - self._running, 2 * slots - len(self._held))
            if room > 0:
                return room
            self._slot_free.clear()
            await self._slot_free.wait()
        return 1

    async def _wait_out(self, error: MqError, backoff: Backoff) -> None:
        if not isinstance(error, Unavailable):  # those are logged once an outage, by the connections
            log.error("queue out of order", queue=self._queue.name, error=str(error))
        try:
            async with asyncio.timeout(backoff.next_s()):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _pass_the_bell_on(self) -> None:
        """A token that we took, or that woke our cut-off BLPOP, belongs to whoever still consumes."""
        try:
            await self._broker.ring()
            await self._broker.leave(self.name)
        except MqError:
            return  # they look by themselves once a bell timeout

    # Running and settling

    def _start(self, claimed: Claimed) -> None:
        held = Held(claimed, asyncio.get_running_loop().time())
        self._held[claimed.receipt] = held
        self._running += 1
        held.task = asyncio.create_task(self._work(claimed, held), name=f"message {claimed.receipt.id}")
        held.task.add_done_callback(lambda task: self._finished(held, task))

    async def _work(self, claimed: Claimed, held: Held) -> None:
        try:
            outcome = await self._execute(claimed)
        except asyncio.CancelledError:
            if held.given_up or not held.cancelled:
                raise
            if held.task is not None:
                held.task.uncancel()
            outcome = Cancelled()
        finally:
            self._free_slot(held)
        if held.given_up:
            return
        held.settling = True
        if not await self._broker.settle(claimed.receipt, outcome):
            log.warning("stale receipt", queue=self._queue.name, id=claimed.receipt.id)

    def _let_go(self, held: Held) -> None:
        """Hold the message no longer: its slot is free, and a drain need not wait for it."""
        self._held.pop(held.receipt, None)
        self._free_slot(held)
        self._slot_free.set()  # also when the slot was free: a settle held back a claim
        if not self._held:
            self._idle.set()

    def _free_slot(self, held: Held) -> None:
        if not held.slot_freed:
            held.slot_freed = True
            self._running -= 1
            self._slot_free.set()

    def _finished(self, held: Held, task: asyncio.Task[None]) -> None:
        self._let_go(held)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = error
            self._idle.set()
            self.stop()

    # Leases

    async def _renew_leases(self) -> None:
        interval_s = self._queue.lease_s / 3
        backoff = Backoff(most_s=min(1.0, interval_s))
        while True:
            await asyncio.sleep(interval_s)
            while self._held:
                try:
                    await self._let_overdue_go()
                    await self._renew_once()
                except OUTAGES:
                    await asyncio.sleep(backoff.next_s())
                else:
                    backoff.reset()
                    break

    async def _renew_once(self) -> None:
        receipts = list(self._held)
        for i in range(0, len(receipts), _RENEW_BATCH):
            batch = receipts[i : i + _RENEW_BATCH]
            answers = await self._broker.renew(batch, self.name)
            answered = list(zip(batch, answers, strict=True))
            for receipt, answer in answered:
                if answer == 2:
                    self.cancel(receipt.id)
            await self._lose([receipt for receipt, answer in answered if answer == 0])

    async def _let_overdue_go(self) -> None:
        """Report handlers that were cancelled at their timeout and go on; settle for them, and free their slots."""
        if self._overdue is None:
            return
        limit = asyncio.get_running_loop().time() - self._queue.timeout_s - _STUBBORN_S
        for held in [held for held in self._held.values() if held.started_at < limit and not held.settling]:
            log.error("handler ignores its timeout", queue=self._queue.name, id=held.receipt.id)
            held.given_up = True
            await self._broker.settle(held.receipt, self._overdue(held.claimed))
            self._let_go(held)

    async def _lose(self, receipts: Sequence[Receipt]) -> None:
        lost = [self._held[receipt] for receipt in receipts if receipt in self._held]
        lost = [held for held in lost if not held.settling]
        for held in lost:
            log.warning("lease lost", queue=self._queue.name, id=held.receipt.id)
        await self._cancel(lost)

    async def _cancel(self, held: Sequence[Held]) -> None:
        tasks = set()
        for one in held:
            one.given_up = True
            if one.task is not None:
                one.task.cancel()
                tasks.add(one.task)
        if not tasks:
            return
        _, stubborn = await asyncio.wait(tasks, timeout=_STUBBORN_S)
        for one in held:
            if one.task in stubborn:
                log.error("handler ignores cancellation", queue=self._queue.name, id=one.receipt.id)
                self._let_go(one)
