"""Drains by one process: how deep the queue is, whether handlers suspend, what Redis is asked."""

from tests.bench import drains, yardsticks
from tests.bench.figures import Family, Figure, Limit, Plan, Ratio, Rounds
from tests.bench.lab import Lab

STRAIGHT = "drain, handlers that do not suspend"
SUSPENDING = "drain, handlers that suspend once"
STRAIGHT_CPU = "drain, process CPU a message"
SUSPENDING_CPU = "drain, suspending, process CPU a message"
REDIS_CPU = "drain, Redis CPU a message"
CALLS = "drain, script calls a message"

COUNT = 40_000


async def measure(lab: Lab, plan: Plan) -> Rounds:
    sender, worker = await lab.subject(consumers=False), await lab.subject(consumers=True)
    count = plan.count(COUNT)
    await drains.drain(lab, sender, [worker], "straight", 5000)  # warm
    for _ in range(plan.rounds):
        yardstick = await yardsticks.both(lab)
        straight = await drains.drain(lab, sender, [worker], "straight", count)
        suspending = await drains.drain(lab, sender, [worker], "suspending", count)
        yield {
            **yardstick,
            STRAIGHT: straight.per_s,
            STRAIGHT_CPU: straight.cpu_us,
            SUSPENDING: suspending.per_s,
            SUSPENDING_CPU: suspending.cpu_us,
            REDIS_CPU: straight.redis_cpu_us,
            CALLS: max(straight.calls, suspending.calls),
        }


FAMILY = Family(
    "drain",
    measure,
    (
        Figure(yardsticks.REDIS_BENCHMARK),
        Figure(yardsticks.PIPELINE),
        Figure(STRAIGHT),
        Figure(SUSPENDING),
        Figure(STRAIGHT_CPU, "µs"),
        Figure(SUSPENDING_CPU, "µs"),
        Figure(REDIS_CPU, "µs"),
        Figure(CALLS, "calls"),
    ),
    (
        Ratio(STRAIGHT, yardsticks.REDIS_BENCHMARK),
        Ratio(STRAIGHT, yardsticks.PIPELINE, quick_at_least=0.5),
        Ratio(SUSPENDING, yardsticks.REDIS_BENCHMARK),
        Ratio(SUSPENDING, yardsticks.PIPELINE, quick_at_least=0.35),
        Ratio(STRAIGHT, SUSPENDING, at_least=1.3),
    ),
    (Limit(CALLS, 0.05, 0.05),),
)
