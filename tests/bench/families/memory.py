"""What a message takes in Redis, queued and done, and what a process takes. Nothing here knows noise: one round."""

from tests.bench import drains
from tests.bench.figures import Family, Figure, Limit, Plan, Rounds
from tests.bench.lab import Lab

QUEUED = "Redis memory a queued message, small int"
DONE = "Redis memory a done message, result kept"
SENDER = "resident memory of a process that has sent a million"
WORKER = "resident memory of a process that has drained 100,000"
WORKER_LATER = "resident memory of it after a million"
GROWTH = "growth of its memory over that million"
PART = 100_000


async def measure(lab: Lab, plan: Plan) -> Rounds:
    sender, worker = await lab.subject(consumers=False), await lab.subject(consumers=True)
    await lab.clear()
    await lab.pause(worker, "straight")
    empty = await lab.used_memory()
    await sender.call("batch", queue="straight", count=PART, of=drains.BATCH)
    queued = await lab.used_memory() - empty
    await lab.resume(worker, "straight")
    await lab.settled("straight")
    figures = {QUEUED: queued / PART, DONE: (await lab.used_memory() - empty) / PART}
    if not plan.quick:
        first = (await worker.call("memory"))["rss"]
        for _ in range(10):
            await drains.drain(lab, sender, [worker], "straight", PART)
        later = (await worker.call("memory"))["rss"]
        figures |= {WORKER: first, WORKER_LATER: later, GROWTH: later / first}
        figures[SENDER] = (await sender.call("memory"))["rss"]
    yield figures


FAMILY = Family(
    "memory",
    measure,
    (
        Figure(QUEUED, "bytes"),
        Figure(DONE, "bytes"),
        Figure(SENDER, "bytes"),
        Figure(WORKER, "bytes"),
        Figure(WORKER_LATER, "bytes"),
        Figure(GROWTH, "x"),
    ),
    limits=(Limit(QUEUED, 300, 300), Limit(GROWTH, 1.1)),
)
