"""Runs a family: its rounds, one figure after the other in each, then the medians."""

import contextlib
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.figures import Family, Figure, Plan, Round
from tests.bench.lab import lab

ITSELF = "itself"


@dataclass(frozen=True)
class Judged:
    """A ratio, or a figure with a limit, and what became of its bound."""

    name: str
    value: float
    """The median."""
    of_bests: float
    """The ratio of the best rounds: steadier than the median while others load the machine."""
    bound: str = ""
    met: bool | None = None
    """None: there is no bound."""


@dataclass(frozen=True)
class Measured:
    """A figure of one run."""

    figure: Figure
    rounds: Sequence[float]
    judged: Sequence[Judged] = field(default_factory=tuple)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def best(self) -> float:
        """Return the round that was disturbed least."""
        return best(self.rounds, self.figure.unit)

    @property
    def spread(self) -> float:
        """Return the largest by the smallest round: how much the machine, or somebody else on it, disturbed."""
        return max(self.rounds) / min(self.rounds) if min(self.rounds) > 0 else math.inf


async def run(family: Family, plan: Plan) -> list[Measured]:
    """Measure a family. Figures that no round had are left out."""
    rounds: list[Round] = []
    async with lab() as place, contextlib.aclosing(family.measure(place, plan)) as measuring:
        rounds = [figures async for figures in measuring]
    return measured(family, rounds, plan.quick)


def measured(family: Family, rounds: Sequence[Round], quick: bool) -> list[Measured]:
    """Return what rounds came to."""
    return [
        Measured(figure, values, tuple(_judged(family, figure.name, rounds, quick)))
        for figure in family.figures
        if (values := [figures[figure.name] for figures in rounds if figure.name in figures])
    ]


def _judged(family: Family, name: str, rounds: Sequence[Round], quick: bool) -> Iterator[Judged]:
    units = {figure.name: figure.unit for figure in family.figures}
    for ratio in family.ratios:
        both = [r for r in rounds if ratio.figure in r and r.get(ratio.yardstick)]
        if ratio.figure == name and both:
            ours, theirs = ([r[which] for r in both] for which in (name, ratio.yardstick))
            value = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            of_bests = best(ours, units[name]) / best(theirs, units[ratio.yardstick])
            least, most = ratio.at_least, ratio.at_most
            if quick:
                least, most = ratio.quick_at_least, ratio.quick_at_most
            yield _judge(f"/ {ratio.yardstick}", value, of_bests, least, most, quick)
    for limit in family.limits:
        values = [r[name] for r in rounds if name in r]
        if limit.figure == name and values:
            most = limit.quick_at_most if quick else limit.at_most
            yield _judge(ITSELF, statistics.median(values), best(values, units[name]), None, most, quick)


def _judge(name: str, value: float, of_bests: float, least: float | None, most: float | None, lenient: bool) -> Judged:
    """Hold a value against its bound; `lenient`: what others do on the machine must not fail anybody's check."""
    values = (value, of_bests) if lenient else (value,)
    if least is not None:
        return Judged(name, value, of_bests, f">= {least:g}", any(v >= least for v in values))
    if most is not None:
        return Judged(name, value, of_bests, f"<= {most:g}", any(v <= most for v in values))
    return Judged(name, value, of_bests)


def best(values: Sequence[float], unit: str) -> float:
    """Return the value of the round that was disturbed least."""
    return max(values) if unit == "/s" else min(values)
