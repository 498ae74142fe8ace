"""That `make bench` works: one family, one round, a thousand messages. No figure is judged here."""

from tests.bench import running, yardsticks
from tests.bench.families import drain
from tests.bench.figures import Plan


async def test_drain_when_measured_in_small_then_it_has_all_its_figures() -> None:
    measured = await running.run(drain.FAMILY, Plan(rounds=1, scale=0.01))
    wanted = {figure.name for figure in drain.FAMILY.figures}
    # The one figure that needs a program which is not on every machine.
    assert wanted - {m.figure.name for m in measured} <= {yardsticks.REDIS_BENCHMARK}
    assert all(m.median > 0 for m in measured)
