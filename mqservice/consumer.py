"""The consumer: claims messages of one queue, runs them in lanes, settles what they came to.

Run by the service as one watched task. A slot first, then a claim: what is claimed is started at once, or so soon that
claiming ahead pays (`prefetch`). `stop()` only sets events, `run()` does the waiting. A broken Redis is waited for; an
error of our own ends `run()` with it. Leases are renewed from another thread, see `leases`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from mqservice.broker import Broker, claim_token
from mqservice.errors import MqError
from mqservice.fault import OUTAGES, Fault
from mqservice.held import Held
from mqservice.lanes import Lanes
from mqservice.message import Cancelled, Claimed, Outcome, Receipt
from mqservice.prefetch import Prefetch
from mqservice.retry import Backoff
from mqservice.settling import Settler
from mqservice.tally import QueueTally
from mqservice.tracing import QUEUE

log = structlog.get_logger()

Execute = Callable[[Claimed], Awaitable[Outcome]]

Failed = Callable[[Claimed, BaseException, float], Outcome]
"""Says what a run comes to that did not end by itself: the message, the error, the seconds it took."""

_STUBBORN_S = 2.0
"""How long a cancelled handler may take to end before it is reported and left behind."""

_TICK_S = 0.5
"""How often we look for handlers whose time is over."""

_LATE_S = 1.0
"""What was claimed ahead and has waited so long for a handler is given back: somebody else may have a free one."""

_PROVE_S = 15.0
"""An idle consumer settles nothing for longer than this without showing that it could."""


class Consumer:
    """Takes the messages of one queue, `concurrency` at a time, and hands them to `execute`.

    `name` is unique among all consumers that use this Redis: the claims are replayed by it. `failed` tells what
    becomes of a message whose handler ignores that its time is over, or cancels itself. `tally` counts.
    """

    def __init__(
        self, broker: Broker, execute: Execute, name: str, failed: Failed, tally: QueueTally | None = None
    ) -> None:
        self._broker, self._execute, self.name, self._failed = broker, execute, name, failed
        self._tally = tally or QueueTally(broker.queue.name)
        self.queue = broker.queue
        self._bell = broker.bell()
        self._lanes = Lanes(self._work, self.queue.concurrency, f"lane {self.queue.name}")
        self._settler = Settler(broker, self._let_go, self._tally)
        self._held: dict[Receipt, Held] = {}
        self._prefetch = Prefetch(self.queue.concurrency)
        self._room_found = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._fault: BaseException | None = None
        self._losses: asyncio.Queue[Held] = asyncio.Queue()
        self._unstarted: list[Held] = []
        self._claims: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._token = ""
        """Of a claim that has not been answered. It may have run: asked again with its token, it gives the same."""
        self._claimed_at = asyncio.get_running_loop().time()
        self._full = False
        self._claim_fault = Fault(self.queue.name)

    @property
    def held(self) -> int:
        """Messages whose lease this consumer holds."""
        return len(self._held)

    def stop(self) -> None:
        """Take nothing new. `run()` returns when what runs has been settled. Works before start and twice."""
        self._stopping.set()
        self._unstarted += self._lanes.take_back()
        self._room_found.set()
        self._bell.silence()

    async def run(self) -> None:
        """Claim, run and settle until stopped. Raises what went wrong with our own code, never Redis's outages."""
        QUEUE.set(self.queue.name)
        settler = self._part(self._settler.run(), "settler")
        overseer = self._part(self._oversee(), "overseer")
        for part in (settler, overseer):
            part.add_done_callback(self._part_ended)
        try:
            while not self._stopping.is_set():
                self._claims = self._part(self._claim_until_stopped(), "claims")
                await asyncio.wait([self._claims])  # cut off only by `restart`
            await self._give_back([held for held in self._unstarted if not held.given_up])
            while self._held and self._fault is None:
                self._ended.clear()
                await self._ended.wait()
            if self._fault is not None:
                raise self._fault
        finally:
            parts = {task for task in (settler, overseer, self._claims, self._returning) if task is not None}
            for task in parts:
                task.cancel()
            await asyncio.wait(parts)
            await self._lanes.aclose()
            await self._bell.aclose()

    def cancel(self, message_id: str) -> None:
        """Cancel a message that this consumer holds; its outcome is then Cancelled."""
        for held in [held for receipt, held in self._held.items() if receipt.id == message_id]:
            if held.settling or held.cancelled:
                continue
            held.cancelled = True
            if held.task is not None:
                held.task.cancel()
            elif self._lanes.remove(held):
                self._settle(held, Cancelled())

    async def abandon(self) -> None:
        """Cancel what still runs and give it back with no attempt used. Call after `stop()`."""
        running = [held for held in self._held.values() if not held.settling]
        for held in running:
            held.given_up = True
        await self._cancel(running)
        await self._give_back(running)

    # What other threads ask and tell

    def renewable(self, stuck_s: float) -> list[Receipt]:
        """Return the receipts to be renewed, the event loop having been stuck for `stuck_s`. Thread-safe.

        None once the loop has been stuck for longer than a handler may take: somebody else shall have them.
        """
        return [] if stuck_s > self.queue.timeout_s else list(self._held)

    def renewed(self, receipts: Sequence[Receipt], answers: Sequence[int]) -> None:
        """Take note of what became of a renewal: cancel what was asked to be, and what is no longer ours."""
        for receipt, answer in zip(receipts, answers, strict=True):
            if answer == 2:
                self.cancel(receipt.id)
            elif answer == 0 and (held := self._held.get(receipt)) and not held.settling and not held.given_up:
                log.warning("lease lost", queue=self.queue.name, id=receipt.id)
                self._tally.lease_losses += 1
                held.given_up = True
                if held.task is not None:
                    held.task.cancel()
                else:
                    self._lanes.remove(held)
                self._losses.put_nowait(held)

    def at_work(self, task: asyncio.Task[Any] | None) -> str | None:
        """Return the id of the message that a lane works on; None when it is no lane of ours."""
        return next((held.receipt.id for held in list(self._held.values()) if held.task is task), None)

    # Proof of life

    @property
    def silent_s(self) -> float:
        """For how long bell, claim or settle has not been answered, whichever is longest. 0: all slots are taken."""
        now = asyncio.get_running_loop().time()
        return max(0.0 if self._full else now - self._claimed_at, now - self._settler.answered_at)

    @property
    def fault(self) -> str:
        """What is wrong with the queue, though Redis answers; empty when nothing is."""
        return self._claim_fault.text or self._settler.fault.text

    def restart(self) -> None:
        """Begin anew with claiming, on a new connection: for a watchdog that finds it stuck."""
        if self._claims is not None:
            self._claims.cancel()
        self._bell.restart()

    # Claiming

    async def _claim_until_stopped(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            room = await self._room()
            if self._stopping.is_set():
                break
            try:
                self._token = self._token or claim_token()
                claim = await self._broker.claim(self._token, self.name, room)
                self._token = ""
                backoff.reset()
                self._claim_fault.end()
                self._claimed_at = asyncio.get_running_loop().time()
                self._take(claim.messages)
                if self._prefetch.wants_bell(len(claim.messages), room):
                    await self._bell.wait(claim.next_due_s)
            except OUTAGES as error:
                self._claim_fault.note(error)
                await self._wait_out(backoff)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - ends `run`, which raises it
                self._break(error)
        if self._token:
            await self._recover_claim()
        await self._pass_the_bell_on()

    async def _recover_claim(self) -> None:
        """Learn what a claim took whose answer never came, so that it is given back, and not found as a crash."""
        try:
            self._take((await self._broker.claim(self._token, self.name, 1)).messages)
        except MqError:
            return  # Redis is still away: the leases expire

    def _take(self, messages: Sequence[Claimed]) -> None:
        now = time.monotonic()
        taken = [Held(claimed, now) for claimed in messages]
        for held in taken:
            self._held[held.claimed.receipt] = held
        if self._stopping.is_set():
            self._unstarted += taken
        else:
            self._lanes.put(taken)

    async def _room(self) -> int:
        """Wait for free slots and return how many messages to claim."""
        while not self._stopping.is_set():
            room = self._prefetch.room(self._lanes.busy, len(self._held))
            self._full = room == 0
            if room:
                return room
            self._room_found.clear()
            await self._room_found.wait()
        return 1

    async def _wait_out(self, backoff: Backoff) -> None:
        stopped = self._part(self._stopping.wait(), "outage, stopped")
        try:
            await asyncio.wait({stopped}, timeout=backoff.next_s())
        finally:
            stopped.cancel()

    async def _pass_the_bell_on(self) -> None:
        """A token that we took, or that woke our cut-off BLPOP, belongs to whoever still consumes."""
        try:
            await self._broker.ring()
            await self._broker.leave(self.name)
        except MqError:
            return  # they look by themselves once a bell timeout

    # Running and settling

    async def _work(self, held: Held) -> None:
        claimed = held.claimed
        held.started_at = began_at = time.monotonic()
        try:
            outcome = await self._execute(claimed)
        except asyncio.CancelledError as error:
            if self._lanes.closing:
                raise
            took_s = time.monotonic() - began_at
            outcome = Cancelled() if held.cancelled else self._failed(claimed, error, took_s)
        except Exception as error:  # noqa: BLE001 - ends `run`, which raises it
            self._break(error)
            return
        took_s = time.monotonic() - began_at
        self._tally.run.observe(took_s)
        self._prefetch.ran(took_s, len(held.claimed.body))
        if not held.given_up:
            self._settle(held, outcome)
        self._room_found.set()

    def _settle(self, held: Held, outcome: Outcome) -> None:
        held.settling = True
        self._settler.put(held, outcome)

    def _let_go(self, held: Held) -> None:
        """Hold the message no longer."""
        self._held.pop(held.claimed.receipt, None)
        self._room_found.set()
        if not self._held:
            self._ended.set()

    def _part_ended(self, part: asyncio.Task[Any]) -> None:
        if not part.cancelled() and (error := part.exception()) is not None:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        self._fault = error
        self._ended.set()
        self.stop()

    # Leases that end otherwise

    async def _oversee(self) -> None:
        """Look after handlers that ought to have ended, and show that an idle consumer can still settle."""
        while True:
            losses = []
            try:
                async with asyncio.timeout(_TICK_S):
                    losses.append(await self._losses.get())
            except TimeoutError:
                pass
            while not self._losses.empty():
                losses.append(self._losses.get_nowait())
            await self._leave_behind(losses)
            self._let_overdue_go()
            self._let_late_go()
            try:
                if asyncio.get_running_loop().time() - self._settler.answered_at > _PROVE_S:
                    await self._settler.prove()
            except OUTAGES:
                continue

    def _let_overdue_go(self) -> None:
        """Report handlers that were cancelled at their timeout and go on; settle for them, and free their slots."""
        limit = time.monotonic() - self.queue.timeout_s - _STUBBORN_S
        for held in [held for held in self._held.values() if 0 < held.started_at < limit and not held.settling]:
            log.error("handler ignores its timeout", queue=self.queue.name, id=held.receipt.id)
            held.given_up = True
            error = TimeoutError(f"the handler ignored its cancellation after {self.queue.timeout_s:g} s")
            self._lanes.forsake(held)
            self._settle(held, self._failed(held.claimed, error, self.queue.timeout_s))

    def _let_late_go(self) -> None:
        """Give back what was claimed ahead while handlers were quick, now that all of them take their time."""
        if self._returning is not None and not self._returning.done():
            return
        if late := self._lanes.take_late(time.monotonic() - _LATE_S):
            self._prefetch.was_late(_LATE_S)
            for held in late:
                held.given_up = True
            self._returning = self._part(self._give_back(late), "returning")
            self._returning.add_done_callback(self._part_ended)

    async def _cancel(self, running: Sequence[Held]) -> None:
        for held in running:
            if held.task is not None:
                held.task.cancel()
            else:
                self._lanes.remove(held)
        await self._leave_behind(running)

    async def _leave_behind(self, cancelled: Sequence[Held]) -> None:
        """Wait for handlers that have been cancelled; those that go on regardless lose their lane."""
        for held in await self._lanes.wait_left(cancelled, _STUBBORN_S):
            log.error("handler ignores cancellation", queue=self.queue.name, id=held.receipt.id)
            self._lanes.forsake(held)
        for held in cancelled:
            self._let_go(held)

    async def _give_back(self, messages: Sequence[Held]) -> None:
        if not messages:
            return
        try:
            await self._broker.release([held.receipt for held in messages])
            log.info("released", queue=self.queue.name, count=len(messages))
        except OUTAGES as error:  # the leases expire
            log.warning("not released", queue=self.queue.name, count=len(messages), error=str(error))
        for held in messages:
            self._let_go(held)

    def _part(self, run: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(run, name=f"{name} {self.name}")
