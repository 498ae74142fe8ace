"""What the append-only file costs: everysec, as our own server has it, beside none."""

from tests.bench import drains, yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.subject import UNREAD

DRAIN, DRAIN_NONE = "drain, append-only file everysec", "drain, no append-only file"
SEND, SEND_NONE = "send, 100 callers, append-only file everysec", "send, 100 callers, no append-only file"
EVERYSEC = ("--appendonly", "yes")


async def measure(lab: Lab, plan: Plan) -> Rounds:
    count = plan.count(40_000)
    places = {(DRAIN, SEND): await lab.another(EVERYSEC), (DRAIN_NONE, SEND_NONE): lab}
    pairs = {
        names: (place, await place.subject(consumers=False), await place.subject(consumers=True))
        for names, place in places.items()
    }
    for place, sender, worker in pairs.values():
        await drains.drain(place, sender, [worker], "straight", 5000)  # warm
    for _ in range(plan.rounds):
        figures = {yardsticks.PIPELINE: await yardsticks.pipeline(lab)}
        for (drain, send), (place, sender, worker) in pairs.items():
            figures[drain] = (await drains.drain(place, sender, [worker], "straight", count)).per_s
            took = await sender.call("send", queue=UNREAD, count=count, callers=100)
            figures[send] = count / took["s"]
            await place.clear()
        yield figures


FAMILY = Family(
    "durability",
    measure,
    (Figure(yardsticks.PIPELINE), *(Figure(name) for name in (DRAIN, DRAIN_NONE, SEND, SEND_NONE))),
    (
        Ratio(DRAIN, DRAIN_NONE, at_least=0.7),
        Ratio(SEND, SEND_NONE, at_least=0.7),
        Ratio(DRAIN, yardsticks.PIPELINE),
        Ratio(SEND, yardsticks.PIPELINE),
    ),
    in_quick=False,
)
