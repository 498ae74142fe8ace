"""Lease renewal, in the sidecar: a handler that blocks the event loop keeps its lease.

Each consumer's leases are renewed three times within their length, over a connection of this thread's own. What a
renewal answers is handed to the consumer on its own loop.
"""

import asyncio
from collections.abc import Callable, Sequence

from mqservice.broker import Broker
from mqservice.connections import Connections
from mqservice.consumer import Consumer
from mqservice.fault import OUTAGES
from mqservice.retry import Backoff

_BATCH = 500


class Renewal:
    """Renews the leases of `consumers`, which live on `loop`.

    `connect` makes the connections that are used here; `stuck_s` says for how long the loop has not turned.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        loop: asyncio.AbstractEventLoop,
        connect: Callable[[], Connections],
        stuck_s: Callable[[], float],
    ) -> None:
        self._consumers, self._loop, self._connect, self._stuck_s = consumers, loop, connect, stuck_s

    async def run(self) -> None:
        """Renew until cancelled."""
        connections = self._connect()
        try:
            async with asyncio.TaskGroup() as together:  # one that fails takes the others along: all start anew
                for consumer in self._consumers:
                    together.create_task(self._renew(consumer, connections))
        finally:
            await connections.aclose()

    async def _renew(self, consumer: Consumer, connections: Connections) -> None:
        broker = Broker(connections, consumer.queue)
        interval_s = consumer.queue.lease_s / 3
        backoff = Backoff(most_s=min(1.0, interval_s))
        while True:
            await asyncio.sleep(interval_s)
            while True:
                try:
                    await self._renew_once(consumer, broker)
                except OUTAGES:
                    await asyncio.sleep(backoff.next_s())
                else:
                    backoff.reset()
                    break

    async def _renew_once(self, consumer: Consumer, broker: Broker) -> None:
        receipts = consumer.renewable(self._stuck_s())
        for start in range(0, len(receipts), _BATCH):
            batch = receipts[start : start + _BATCH]
            answers = await broker.renew(batch, consumer.name)
            self._loop.call_soon_threadsafe(consumer.renewed, batch, answers)
