"""Drains of queues that are deeper and deeper: must cost the same."""

from tests.bench import drains, yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
TAKEN = 20_000
SHALLOW_TIMES = 10


def name(depth: int) -> str:
    return f"drain, {depth:,} deep"


def redis_cpu(depth: int) -> str:
    return f"drain, {depth:,} deep, Redis CPU a message"


async def measure(lab: Lab, plan: Plan) -> Rounds:
    sender, worker = await lab.subject(consumers=False), await lab.subject(consumers=True)
    deep = await lab.another(())
    deep_sender, deep_worker = await deep.subject(consumers=False), await deep.subject(consumers=True)
    await deep.pause(deep_worker, "straight")
    await deep_sender.call("batch", queue="straight", count=DEPTHS[-1], of=drains.BATCH)
    await drains.drain(lab, sender, [worker], "straight", 5000)  # warm
    for _ in range(plan.rounds):
        figures = await yardsticks.both(lab)
        for depth in DEPTHS[:-1]:
            times = SHALLOW_TIMES if depth == DEPTHS[0] else 1
            runs = [await drains.drain(lab, sender, [worker], "straight", depth) for _ in range(times)]
            figures[name(depth)] = times / sum(1 / run.per_s for run in runs)
            figures[redis_cpu(depth)] = sum(run.redis_cpu_us for run in runs) / times
        run = await drains.drain_part(deep, deep_sender, deep_worker, "straight", TAKEN)
        figures |= {name(DEPTHS[-1]): run.per_s, redis_cpu(DEPTHS[-1]): run.redis_cpu_us}
        yield figures


FAMILY = Family(
    "depth",
    measure,
    (
        Figure(yardsticks.REDIS_BENCHMARK),
        Figure(yardsticks.PIPELINE),
        *(figure for depth in DEPTHS for figure in (Figure(name(depth)), Figure(redis_cpu(depth), "µs"))),
    ),
    (
        *(Ratio(name(depth), yardsticks.PIPELINE) for depth in DEPTHS),
        Ratio(name(DEPTHS[-1]), name(DEPTHS[0]), at_least=0.9),
    ),
    in_quick=False,
)
