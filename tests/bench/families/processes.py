"""Two processes that drain one queue, beside one.

Handlers that do nothing leave Redis no idle time with one process already: a second can only take its core away. So
the bound is on handlers that use 500 µs of CPU each, where neither Redis nor the cores are full with one.
"""

import os

from tests.bench import drains, yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
ONE, TWO = "drain, 1 process", f"drain, 2 processes, {CORES} cores with Redis"
WORK_ONE, WORK_TWO = f"{ONE}, handlers of 500 µs", f"{TWO}, handlers of 500 µs"
IN_USE = ", of a core in use by Redis"


async def measure(lab: Lab, plan: Plan) -> Rounds:
    sender = await lab.subject(consumers=False)
    one = await lab.subject(consumers=True)
    pair = await lab.another(())
    pair_sender = await pair.subject(consumers=False)
    two = [await pair.subject(consumers=True) for _ in range(2)]
    for place, by, workers in ((lab, sender, [one]), (pair, pair_sender, two)):
        await drains.drain(place, by, workers, "straight", 5000)  # warm
    for _ in range(plan.rounds):
        figures = await yardsticks.both(lab)
        for queue, full, of_one, of_two in (("straight", 40_000, ONE, TWO), ("working", 4_000, WORK_ONE, WORK_TWO)):
            count = plan.count(full)
            for figure, place, by, workers in ((of_one, lab, sender, [one]), (of_two, pair, pair_sender, two)):
                drained = await drains.drain(place, by, workers, queue, count)
                figures[figure] = drained.per_s
                figures[figure + IN_USE] = drained.redis_cpu_us * drained.per_s / 1e6
        yield figures


FAMILY = Family(
    "processes",
    measure,
    (
        Figure(yardsticks.REDIS_BENCHMARK),
        Figure(yardsticks.PIPELINE),
        *(figure for name in (ONE, TWO, WORK_ONE, WORK_TWO) for figure in (Figure(name), Figure(name + IN_USE, "x"))),
    ),
    (
        Ratio(ONE, yardsticks.PIPELINE),
        Ratio(TWO, yardsticks.PIPELINE),
        Ratio(TWO, ONE),
        Ratio(WORK_TWO, WORK_ONE, at_least=1.6),
    ),
    in_quick=False,
)
