"""The table of faults: what each row promises, what was measured, and whether that was kept."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.ledger import Balance

LONG = os.environ.get("CHAOS") == "long"
"""`make chaos`: as many rounds as convince; `make test` runs fewer."""

HEADINGS = ("fault", "bound s", "going again s", "sent", "lost", "twice", "may")


@dataclass
class Row:
    """One fault. Fill in what was measured; the fixture `row` checks it when the test has ended."""

    fault: str
    bound_s: float
    """Going again within so many seconds."""
    may_run_twice: int = 0
    """Messages that were in flight in whoever was killed or cut off for longer than a lease."""
    took_s: list[float] = field(default_factory=list)
    """From the fault, or from its end where it says so, until a message is handled; one for each time."""
    sent: int | None = None
    lost: int | None = None
    twice: int | None = None
    sum_holds: bool | None = None

    def going_again(self, seconds: float) -> None:
        """Note one recovery."""
        self.took_s.append(seconds)

    def close(self, balance: Balance) -> None:
        """Note what the books say."""
        self.sent, self.lost, self.twice = balance.acknowledged, len(balance.lost), balance.twice
        self.sum_holds = balance.sum_holds

    def compare(self, wanted: Collection[str], got: Collection[str]) -> None:
        """Note which keys of an undisturbed database are missing in a disturbed one, and which it has beyond."""
        self.sent, self.lost, self.twice = len(wanted), len(set(wanted) - set(got)), len(set(got) - set(wanted))
        self.sum_holds = True

    def figures(self) -> dict[str, Any]:
        """Return the row as plain data."""
        took = round(max(self.took_s), 2) if self.took_s else None
        values = (self.fault, self.bound_s, took, self.sent, self.lost, self.twice, self.may_run_twice)
        return dict(zip(HEADINGS, values, strict=True))

    def check(self) -> None:
        """Fail unless every bound was kept."""
        assert self.took_s, f"{self.fault}: never going again"
        assert max(self.took_s) <= self.bound_s, self.figures()
        assert self.lost == 0, self.figures()
        assert self.twice is not None
        assert self.twice <= self.may_run_twice, self.figures()
        assert self.sum_holds, self.figures()


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table; none without rows. Rows of one fault are added up, of times the longest counts."""
    if not rows:
        return []
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        fault = row["fault"]
        merged[fault] = _added(merged[fault], row) if fault in merged else dict(row)
    cells = [
        HEADINGS,
        *(tuple("-" if row[name] is None else str(row[name]) for name in HEADINGS) for row in merged.values()),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    return ["", *("  ".join(_aligned(line, widths)).rstrip() for line in cells)]


def notes(texts: Iterable[str]) -> list[str]:
    """Return what tests have to tell beside the table, as lines under it."""
    lines = list(texts)
    return ["", *lines] if lines else []


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    added = dict(one)
    for name in ("sent", "lost", "twice", "may"):
        added[name] = None if None in (one[name], other[name]) else one[name] + other[name]
    took = [row["going again s"] for row in (one, other) if row["going again s"] is not None]
    added["going again s"] = max(took, default=None)
    return added


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    pairs = list(zip(line, widths, strict=True))
    return [pairs[0][0].ljust(pairs[0][1]), *(cell.rjust(width) for cell, width in pairs[1:])]
