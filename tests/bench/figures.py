"""What is measured, as data: figures, the ratios between them, the bounds of those."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.lab import Lab

Round = dict[str, float]
"""Figure → value, of one round. A figure that is absent could not be measured here."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    scale: float = 1.0
    """Times the number of messages of a full run."""
    quick: bool = False
    """Only what `make bench-quick` judges."""

    def count(self, full: int) -> int:
        """Return so many messages, whole thousands."""
        return max(1000, int(full * self.scale) // 1000 * 1000)


@dataclass(frozen=True)
class Figure:
    """One measured value. `unit` decides how it is printed; of a rate more is better, of all others less."""

    name: str
    unit: str = "/s"


@dataclass(frozen=True)
class Ratio:
    """How a figure relates to a yardstick, taken round by round; the median of that counts."""

    figure: str
    yardstick: str
    at_least: float | None = None
    """The bound we want to hold, on any machine."""
    at_most: float | None = None
    quick_at_least: float | None = None
    """The bound of `make bench-quick`: half of what was measured when it was set."""
    quick_at_most: float | None = None


@dataclass(frozen=True)
class Limit:
    """A bound of a figure itself, where no yardstick is needed: counts, bytes, an idle machine's latency."""

    figure: str
    at_most: float
    quick_at_most: float | None = None


Rounds = AsyncGenerator[Round, None]


@dataclass(frozen=True)
class Family:
    """Figures that are measured in turn, within the same rounds: the machine drifts twofold within minutes."""

    name: str
    measure: "Callable[[Lab, Plan], Rounds]"
    """Yields a round at a time, and cleans up behind the last."""
    figures: tuple[Figure, ...]
    ratios: tuple[Ratio, ...] = ()
    limits: tuple[Limit, ...] = ()
    in_quick: bool = True
