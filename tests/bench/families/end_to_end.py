"""From the first send to the last handled, both in one process."""

from tests.bench import yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab

FIGURE = "send to handled, 100 callers, one process"


async def measure(lab: Lab, plan: Plan) -> Rounds:
    subject = await lab.subject(consumers=True)
    count = plan.count(20_000)
    await subject.call("end_to_end", queue="straight", count=2000, callers=100)  # warm
    for _ in range(plan.rounds):
        figures = await yardsticks.both(lab)
        took = await subject.call("end_to_end", queue="straight", count=count, callers=100)
        await lab.settled("straight")
        await lab.clear()
        yield figures | {FIGURE: count / took["s"]}


FAMILY = Family(
    "end-to-end",
    measure,
    (Figure(yardsticks.REDIS_BENCHMARK), Figure(yardsticks.PIPELINE), Figure(FIGURE)),
    (Ratio(FIGURE, yardsticks.REDIS_BENCHMARK), Ratio(FIGURE, yardsticks.PIPELINE, quick_at_least=0.3)),
)
