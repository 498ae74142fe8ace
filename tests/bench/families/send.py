"""Sends from Python: one caller, a hundred, batches."""

from tests.bench import yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.subject import UNREAD

ONE = "send, 1 caller"
HUNDRED = "send, 100 callers"
HUNDRED_CPU = "send, 100 callers, process CPU a message"
BATCH = "send, batches of 1,000"


async def measure(lab: Lab, plan: Plan) -> Rounds:
    sender = await lab.subject(consumers=False)
    few, many = plan.count(4000), plan.count(40_000)
    await sender.call("send", queue=UNREAD, count=2000, callers=100)  # warm
    for _ in range(plan.rounds):
        figures = await yardsticks.both(lab)
        one = await sender.call("send", queue=UNREAD, count=few, callers=1)
        await lab.clear()
        hundred = await sender.call("send", queue=UNREAD, count=many, callers=100)
        await lab.clear()
        batch = await sender.call("batch", queue=UNREAD, count=2 * many, of=1000)
        await lab.clear()
        yield figures | {
            ONE: few / one["s"],
            HUNDRED: many / hundred["s"],
            HUNDRED_CPU: hundred["cpu_s"] / many * 1e6,
            BATCH: 2 * many / batch["s"],
        }


FAMILY = Family(
    "send",
    measure,
    (
        Figure(yardsticks.REDIS_BENCHMARK),
        Figure(yardsticks.PIPELINE),
        Figure(ONE),
        Figure(HUNDRED),
        Figure(HUNDRED_CPU, "µs"),
        Figure(BATCH),
    ),
    (
        Ratio(ONE, yardsticks.PIPELINE, quick_at_least=0.05),
        *(Ratio(figure, yardsticks.REDIS_BENCHMARK) for figure in (HUNDRED, BATCH)),
        Ratio(HUNDRED, yardsticks.PIPELINE, quick_at_least=0.9),
        Ratio(BATCH, yardsticks.PIPELINE, quick_at_least=1.4),
    ),
)
