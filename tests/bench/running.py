"""Runs a family: its rounds, one figure after the other in each, then the medians."""

import contextlib
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.figures import Family, Figure, Limit, Plan, Ratio, Round
from tests.bench.lab import lab


@dataclass(frozen=True)
class Judged:
    """A ratio, or a figure with a limit, and what became of its bound."""

    name: str
    value: float
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
        return max(self.rounds) if self.figure.unit == "/s" else min(self.rounds)

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
    for ratio in family.ratios:
        both = [r for r in rounds if ratio.figure in r and r.get(ratio.yardstick)]
        if ratio.figure == name and both:
            yield _judge_ratio(ratio, statistics.median(r[name] / r[ratio.yardstick] for r in both), quick)
    for limit in family.limits:
        values = [r[name] for r in rounds if name in r]
        if limit.figure == name and values:
            yield _judge_limit(limit, statistics.median(values), quick)


def _judge_ratio(ratio: Ratio, value: float, quick: bool) -> Judged:
    least = ratio.quick_at_least if quick else ratio.at_least
    most = ratio.quick_at_most if quick else ratio.at_most
    name = f"/ {ratio.yardstick}"
    if least is not None:
        return Judged(name, value, f">= {least:g}", value >= least)
    if most is not None:
        return Judged(name, value, f"<= {most:g}", value <= most)
    return Judged(name, value)


def _judge_limit(limit: Limit, value: float, quick: bool) -> Judged:
    most = limit.quick_at_most if quick else limit.at_most
    return Judged("itself", value, f"<= {most:g}", value <= most) if most is not None else Judged("itself", value)
