"""The watchdog, above every deadline: notices a consumer that proves nothing any more, and starts it anew.

A consumer proves itself by being answered: an idle one hears from its bell and claims every second, and settles at
least every 15 s, if only an outcome of no message. Run by the runtime; asked by the probes.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from mqservice.connections import Connections
from mqservice.errors import MqError

log = structlog.get_logger()

READY_S = 30.0
"""A process with a consumer that has been silent for longer is not ready."""

ALIVE_S = 90.0
"""A process with a consumer that has been silent for longer, though Redis answers others, is to be restarted."""

_RESTART_S = 45.0
_LOOK_S = 5.0


class Watched(Protocol):
    """What the watchdog wants of a consumer."""

    name: str

    @property
    def silent_s(self) -> float:
        """For how long Redis has not answered it, though it asked."""

    @property
    def fault(self) -> str:
        """What is wrong with its queue, though Redis answers; empty when nothing is."""

    def restart(self) -> None:
        """Begin anew."""


class Watchdog:
    """Watches the consumers of one process."""

    def __init__(self, consumers: Sequence[Watched], connections: Connections) -> None:
        self._consumers, self._connections = consumers, connections

    @property
    def silent_s(self) -> float:
        """For how long the most silent consumer has not been answered; 0 without consumers."""
        return max((consumer.silent_s for consumer in self._consumers), default=0.0)

    @property
    def fault(self) -> str:
        """What is wrong with the first queue that is out of order; empty when none is."""
        return next((consumer.fault for consumer in self._consumers if consumer.fault), "")

    async def run(self) -> None:
        """Restart what is stuck, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            stuck = [consumer for consumer in self._consumers if _stuck_s(consumer) > _RESTART_S]
            if stuck and await self._redis_answers():
                for consumer in stuck:
                    log.error("consumer stuck, restarted", consumer=consumer.name, silent_s=round(consumer.silent_s))
                    consumer.restart()

    async def is_alive(self) -> bool:
        """Whether a restart would not help: consumers are answered, if by an error, or Redis answers nobody."""
        return max(map(_stuck_s, self._consumers), default=0.0) <= ALIVE_S or not await self._redis_answers()

    async def _redis_answers(self) -> bool:
        """Whether Redis answers on a connection that nobody has used before."""
        fresh = self._connections.single()
        try:
            await self._connections.guard(fresh.ping, quiet=True)
        except MqError:
            return False
        finally:
            await fresh.aclose()
        return True


def _stuck_s(consumer: Watched) -> float:
    """For how long it has had no answer of any kind: to begin anew mends no damaged queue."""
    return 0.0 if consumer.fault else consumer.silent_s
