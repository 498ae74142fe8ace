"""The settler: brings outcomes to Redis, as many at once as there are.

Used by the consumer; one batch at a time, in the order in which handlers ended. Outlives every outage.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from mqservice.broker import Broker, claim_token
from mqservice.fault import OUTAGES, Fault
from mqservice.held import Held
from mqservice.log import debugging
from mqservice.message import Done, Outcome, Receipt
from mqservice.retry import Backoff
from mqservice.tally import QueueTally

log = structlog.get_logger()

_BATCH = 500
_BATCH_BYTES = 4 << 20


class Settler:
    """Settles outcomes of one queue; `settled` is called for each message once Redis has answered."""

    def __init__(self, broker: Broker, settled: Callable[[Held], None], tally: QueueTally) -> None:
        self._broker, self._settled, self._tally = broker, settled, tally
        self._waiting: deque[tuple[Held, Outcome]] = deque()
        self._wake = asyncio.Event()
        self.fault = Fault(broker.queue.name)
        self.answered_at = asyncio.get_running_loop().time()
        """When Redis last answered a settle, by the loop's clock."""

    def put(self, held: Held, outcome: Outcome) -> None:
        """Settle this soon."""
        self._waiting.append((held, outcome))
        self._wake.set()

    async def run(self) -> None:
        """Settle what is put in, until cancelled. What is under way then is settled by the next `run`."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._next_batch()
                answers = await self._settle([(held.receipt, outcome) for held, outcome in batch])
                self.answered_at = loop.time()
                self._tally.settled(batch, answers)
                for (held, _), answer in zip(batch, answers, strict=True):
                    self._waiting.popleft()
                    if not answer and not held.given_up:
                        log.warning("stale receipt", queue=self._broker.queue.name, id=held.receipt.id)
                    self._settled(held)

    async def prove(self) -> None:
        """Show that outcomes can be settled, by one of a message that does not exist. 1 round trip."""
        try:
            await self._broker.settle_many([(Receipt("canary", claim_token()), Done(b""))])
        except OUTAGES as error:
            self.fault.note(error)
            raise
        self.fault.end()
        self.answered_at = asyncio.get_running_loop().time()

    def _next_batch(self) -> list[tuple[Held, Outcome]]:
        """Return the head of the line, which stays there until it has been answered."""
        batch: list[tuple[Held, Outcome]] = []
        size = 0
        for held, outcome in self._waiting:
            size += len(outcome.result) if isinstance(outcome, Done) else 0
            if batch and (len(batch) == _BATCH or size > _BATCH_BYTES):
                break
            batch.append((held, outcome))
        return batch

    async def _settle(self, outcomes: list[tuple[Receipt, Outcome]]) -> list[bool]:
        backoff = Backoff()
        while True:
            try:
                answers = await self._broker.settle_many(outcomes)
            except OUTAGES as error:
                self.fault.note(error)
                await asyncio.sleep(backoff.next_s())
            else:
                self.fault.end()
                if debugging():
                    for receipt, outcome in outcomes:
                        what = type(outcome).__name__.lower()
                        log.debug("settled", queue=self._broker.queue.name, id=receipt.id, outcome=what)
                return answers
