"""Two processes that drain one queue, beside one."""

import os

from tests.bench import drains, yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
ONE, TWO = "drain, 1 process", f"drain, 2 processes, {CORES} cores with Redis"


async def measure(lab: Lab, plan: Plan) -> Rounds:
    sender = await lab.subject(consumers=False)
    one = await lab.subject(consumers=True)
    pair = await lab.another(())
    pair_sender = await pair.subject(consumers=False)
    two = [await pair.subject(consumers=True) for _ in range(2)]
    count = plan.count(40_000)
    for place, by, workers in ((lab, sender, [one]), (pair, pair_sender, two)):
        await drains.drain(place, by, workers, "straight", 5000)  # warm
    for _ in range(plan.rounds):
        figures = await yardsticks.both(lab)
        figures[ONE] = (await drains.drain(lab, sender, [one], "straight", count)).per_s
        figures[TWO] = (await drains.drain(pair, pair_sender, two, "straight", count)).per_s
        yield figures


FAMILY = Family(
    "processes",
    measure,
    (Figure(yardsticks.REDIS_BENCHMARK), Figure(yardsticks.PIPELINE), Figure(ONE), Figure(TWO)),
    (Ratio(ONE, yardsticks.PIPELINE), Ratio(TWO, yardsticks.PIPELINE), Ratio(TWO, ONE, at_least=1.6)),
    in_quick=False,
)
