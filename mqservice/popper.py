"""At most once, the tutorial's way: BLPOP takes the message itself; a crash takes it along.

The consumer of queues with `delivery = "at-most-once"`: no record, no lease, no result, no second try.
"""

import asyncio
import time

import structlog

from mqservice.broker import Broker
from mqservice.consumer import Execute
from mqservice.fault import OUTAGES, Fault
from mqservice.log import debugging
from mqservice.message import Claimed, Dead, RetryIn
from mqservice.retry import Backoff
from mqservice.tally import QueueTally
from mqservice.tracing import QUEUE

log = structlog.get_logger()


class Popper:
    """Pops raw bodies off one queue's list, `concurrency` at a time, and hands them to `execute`.

    `tally` counts.
    """

    def __init__(self, broker: Broker, execute: Execute, name: str, tally: QueueTally | None = None) -> None:
        self._broker, self._execute, self.name = broker, execute, name
        self._tally = tally or QueueTally(broker.queue.name)
        self._pop = broker.pop()
        self._running: set[asyncio.Task[None]] = set()
        self._slot_free = asyncio.Event()
        self._stopping = asyncio.Event()
        self._answered_at = asyncio.get_running_loop().time()
        self._full = False
        self._fault = Fault(broker.queue.name)

    @property
    def silent_s(self) -> float:
        """For how long the pop has not been answered. 0: all slots are taken."""
        return 0.0 if self._full else asyncio.get_running_loop().time() - self._answered_at

    @property
    def fault(self) -> str:
        """What is wrong with the queue, though Redis answers; empty when nothing is."""
        return self._fault.text

    def restart(self) -> None:
        """Do nothing: cutting off a pop that is stuck could lose what it took. Its own deadline ends it."""

    @property
    def held(self) -> int:
        """Messages that are being handled."""
        return len(self._running)

    def stop(self) -> None:
        """Take nothing new. `run()` returns within one BLPOP timeout and the time of what runs."""
        self._stopping.set()
        self._slot_free.set()

    async def run(self) -> None:
        """Pop and run until stopped. The pop under way is waited for: cutting it off could lose what it took."""
        QUEUE.set(self._broker.queue.name)
        backoff = Backoff()
        try:
            while not self._stopping.is_set():
                room = self._broker.queue.concurrency - len(self._running)
                self._full = room <= 0
                if room <= 0:
                    self._slot_free.clear()
                    await self._slot_free.wait()
                    continue
                try:
                    for claimed in await self._pop.take(room):
                        self._start(claimed)
                    self._answered_at = asyncio.get_running_loop().time()
                    backoff.reset()
                    self._fault.end()
                except OUTAGES as error:
                    self._fault.note(error)
                    await asyncio.sleep(backoff.next_s())
            while self._running:
                await asyncio.wait(self._running)
        finally:
            await self._pop.aclose()

    async def abandon(self) -> None:
        """Cancel what still runs. There is nothing to give back to."""
        for task in self._running:
            task.cancel()
        if self._running:
            log.warning("dropped", queue=self._broker.queue.name, count=len(self._running))
            await asyncio.wait(self._running, timeout=2.0)

    def _start(self, claimed: Claimed) -> None:
        task = asyncio.create_task(self._work(claimed), name=f"message {claimed.receipt.id}")
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slot_free.set()

    async def _work(self, claimed: Claimed) -> None:
        started = time.perf_counter()
        outcome = await self._execute(claimed)
        self._tally.run.observe(time.perf_counter() - started)
        self._tally.popped(outcome)
        if isinstance(outcome, (RetryIn, Dead)):
            error = outcome.attempt
            log.warning("failed for good", queue=self._broker.queue.name, type=error.type, text=error.text)
        elif debugging():
            log.debug("handled", queue=self._broker.queue.name, id=claimed.receipt.id)
