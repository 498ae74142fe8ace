"""How a drain is measured, for every family that drains."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.children import Child
from tests.bench.lab import Lab

BATCH = 1000


@dataclass(frozen=True)
class Drained:
    """What one drain came to."""

    per_s: float
    cpu_us: float
    """Of the first worker's process, per message."""
    redis_cpu_us: float
    """Of the server's main thread, per message."""
    calls: float
    """Script calls of all clients, per message."""


async def drain(lab: Lab, sender: Child, workers: Sequence[Child], queue: str, count: int, size: int = 0) -> Drained:
    """Fill a paused queue, resume it, and stop the clock when the last message is settled."""
    await lab.clear()
    await lab.pause(workers[0], queue)
    await sender.call("batch", queue=queue, count=count, of=max(1, min(BATCH, 1_000_000 // (size or 1))), size=size)
    alone = workers[0] if len(workers) == 1 else None
    if alone:
        await alone.call("expect", count=count)
    calls, redis_cpu_s = await lab.script_calls(), await lab.cpu_s()
    began_at = await lab.resume(workers[0], queue)
    cpu_s = (await alone.call("ended"))["cpu_s"] if alone else 0.0
    took_s = await lab.settled(queue) - began_at
    calls, redis_cpu_s = await lab.script_calls() - calls, await lab.cpu_s() - redis_cpu_s
    return Drained(count / took_s, cpu_s / count * 1e6, redis_cpu_s / count * 1e6, calls / count)


async def drain_part(lab: Lab, sender: Child, worker: Child, queue: str, count: int) -> Drained:
    """Take so many off a queue that stays as deep as it was. It is paused before and after."""
    await sender.call("batch", queue=queue, count=count, of=BATCH)
    await worker.call("expect", count=count)
    calls, redis_cpu_s = await lab.script_calls(), await lab.cpu_s()
    began_at = await lab.resume(worker, queue)
    ended = await worker.call("ended")
    calls, redis_cpu_s = await lab.script_calls() - calls, await lab.cpu_s() - redis_cpu_s
    await lab.pause(worker, queue)
    await lab.settled(queue, ready_too=False)
    return Drained(
        count / (ended["at"] - began_at), ended["cpu_s"] / count * 1e6, redis_cpu_s / count * 1e6, calls / count
    )
