"""How fast a queue moves: the counters of the last 10 to 20 seconds, kept by the scripts, over all processes."""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from mqservice import keys
from mqservice.connections import Connections
from mqservice.records import number, text

PERIOD_S = 10
"""One hash of counters per period; `count` of `scripts/shared.lua` writes them."""


async def rates(connections: Connections, list_key: str) -> dict[str, float]:
    """Return events a second by name (sent, done, failed, died, cancelled) over the last full window of 10 s.

    2 round trips.
    """
    redis = connections.commands
    seconds, micros = await redis.time()
    period, passed_s = divmod(seconds + micros / 1e6, PERIOD_S)
    async with redis.pipeline(transaction=False) as pipeline:
        for which in (int(period), int(period) - 1):
            pipeline.hgetall(keys.part(list_key, f"rate:{which}"))
        present, before = await pipeline.execute()
    return per_s(present, before, 1 - passed_s / PERIOD_S)


def per_s(present: Mapping[bytes, bytes], before: Mapping[bytes, bytes], share: float) -> dict[str, float]:
    """Return events a second: the present period counts as far as it has come, `share` of the one before."""
    return {
        text(name): (number(present.get(name)) + number(before.get(name)) * share) / PERIOD_S
        for name in {*present, *before}
    }


class Pace:
    """How often each of some names was counted in this process, a second, over the last 10 to 20 s."""

    NAMES = 200
    """So many are counted at a time; further ones are not, so that no sender's names fill the memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._present: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._since = clock()

    def count(self, name: str) -> None:
        """Count one more."""
        self._turn()
        if name in self._present or len(self._present) < self.NAMES:
            self._present[name] += 1

    def per_s(self) -> dict[str, float]:
        """Return the names that were counted lately."""
        self._turn()
        share = 1 - (self._clock() - self._since) / PERIOD_S
        return {
            name: round((self._present[name] + self._before[name] * share) / PERIOD_S, 3)
            for name in {*self._present, *self._before}
        }

    def _turn(self) -> None:
        passed_s = self._clock() - self._since
        if passed_s >= PERIOD_S:
            self._before = self._present if passed_s < 2 * PERIOD_S else Counter()
            self._present = Counter()
            self._since += passed_s // PERIOD_S * PERIOD_S
