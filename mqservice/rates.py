"""How fast a queue moves: the counters of the last 10 to 20 seconds, kept by the scripts, over all processes."""

from mqservice import keys
from mqservice.connections import Connections

PERIOD_S = 10
"""One hash of counters per period; `count` of `scripts/shared.lua` writes them."""


async def rates(connections: Connections, list_key: str) -> dict[str, float]:
    """Return events a second by name (sent, done, failed, died, cancelled) over the last full window of 10 s.

    The present period counts as far as it has come, the one before for the rest. 2 round trips.
    """
    redis = connections.commands
    seconds, micros = await redis.time()
    period, passed_s = divmod(seconds + micros / 1e6, PERIOD_S)
    async with redis.pipeline(transaction=False) as pipeline:
        for number in (int(period), int(period) - 1):
            pipeline.hgetall(keys.part(list_key, f"rate:{number}"))
        present, before = await pipeline.execute()
    share = 1 - passed_s / PERIOD_S
    return {
        name.decode(): (int(present.get(name, 0)) + int(before.get(name, 0)) * share) / PERIOD_S
        for name in {*present, *before}
    }
