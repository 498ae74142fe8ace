"""How long things take, as counts in fixed buckets: cheap to add to, and several become one by adding.

Filled by consumers, stored in Redis by reports, read by whoever shows a median. Plain data.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

BOUNDS_S: Final = tuple(0.0005 * 2.0**n for n in range(20))
"""The upper end of each bucket, 0.5 ms to 262 s, each twice the one before; one more bucket holds what took longer."""


class Histogram:
    """Counts per bucket of `BOUNDS_S`."""

    __slots__ = ("counts", "sum_s")

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        for bucket, count in (counts or {}).items():
            self.counts[bucket] += count
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def by_bucket(self) -> dict[int, int]:
        """Return the counts by bucket, but for zeros."""
        return {bucket: count for bucket, count in enumerate(self.counts) if count}

    def since(self, before: Sequence[int]) -> "Histogram":
        """Return what came on top of the `counts` of an earlier moment."""
        later = Histogram()
        later.counts = [now - then for now, then in zip(self.counts, before, strict=True)]
        return later

    def quantile_ms(self, share: float) -> float | None:
        """Return how many ms that `share` of all took at most; None when there are none.

        Exact to its bucket, within which all are taken to be spread evenly. Of the last bucket the lower end.
        """
        total = sum(self.counts)
        if not total:
            return None
        rank = share * total
        below = 0
        for bucket, count in enumerate(self.counts):
            if count and below + count >= rank:
                return _between(bucket, (rank - below) / count)
            below += count
        return _between(len(BOUNDS_S), 0.0)


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return one histogram of all that was counted in several."""
    one = Histogram()
    for histogram in histograms:
        one.counts = [mine + its for mine, its in zip(one.counts, histogram.counts, strict=True)]
    return one


def _between(bucket: int, share: float) -> float:
    low = BOUNDS_S[bucket - 1] if bucket else 0.0
    high = BOUNDS_S[bucket] if bucket < len(BOUNDS_S) else low
    return round(1000 * (low + share * (high - low)), 3)
