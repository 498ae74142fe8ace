"""What a process counts of itself: plain numbers that only grow, added to where things happen.

Read once a second by `reports` and `summary`, and by `metrics` at a scrape: nothing is counted twice. Queues whose
names come from senders share one tally beyond the first `NAMES`, so that nobody's names fill memory or a page.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final

from mqservice.held import Held
from mqservice.histogram import BOUNDS_S, Histogram
from mqservice.message import Cancelled, Dead, Done, Outcome, RetryIn

NAMES: Final = 200
OTHER: Final = "(other)"
"""The queues that are not told apart. No queue can have this name."""

Key = tuple[str, str]
"""A field, such as `run 3` or `http GET /v1/queues 200`, and a queue, "" where it is of the whole process."""

Counts = dict[Key, int]


class QueueTally:
    """What this process has done for one queue. Outcomes count once Redis has them, runs when they end."""

    __slots__ = (
        "cancelled",
        "dead",
        "done",
        "failed",
        "lease_losses",
        "name",
        "recoveries",
        "retried",
        "run",
        "sent",
        "wait",
    )

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.sent = self.done = self.failed = self.retried = self.cancelled = 0
        self.dead: Counter[str] = Counter()
        """By reason."""
        self.lease_losses = 0
        self.recoveries = 0
        """Runs of messages whose process had gone while it had them."""
        self.run = Histogram()
        self.wait = Histogram()
        """From send to the start of the first run; a delay that was asked for is part of it."""

    def settled(self, batch: Sequence[tuple[Held, Outcome]], answers: Sequence[bool]) -> None:
        """Count outcomes that Redis has answered. 0.2 µs a message that is done."""
        others, waits, waited_s = 0, self.wait.counts, 0.0
        for (held, outcome), kept in zip(batch, answers, strict=True):
            if not kept:
                others += 1
                continue
            if type(outcome) is not Done:
                others += 1
                self._count(outcome)
            claimed = held.claimed
            if claimed.crashes:
                self.recoveries += 1
            elif not claimed.attempts and (began_at := held.started_at):
                wait_s = (claimed.claimed_ms - claimed.sent_ms) / 1000 + began_at - held.claimed_at
                waits[bisect_left(BOUNDS_S, wait_s)] += 1
                waited_s += wait_s
        self.done += len(batch) - others
        self.wait.sum_s += max(0.0, waited_s)  # the clock of Redis may have gone back

    def popped(self, outcome: Outcome) -> None:
        """Count the outcome of a message that was taken off its list for good: it is done, or has died."""
        if isinstance(outcome, Done):
            self.done += 1
        elif isinstance(outcome, RetryIn):
            self.failed += 1
            self.dead["failed"] += 1
        else:
            self._count(outcome)

    def counts(self) -> Counts:
        """Return what is not 0."""
        plain = ("sent", "done", "failed", "retried", "cancelled", "lease_losses", "recoveries")
        found = {(field, self.name): value for field in plain if (value := getattr(self, field))}
        found |= {(f"dead {reason}", self.name): count for reason, count in self.dead.items()}
        return found | _histogram("run", self.run, self.name) | _histogram("wait", self.wait, self.name)

    def _count(self, outcome: Outcome) -> None:
        match outcome:
            case RetryIn():
                self.failed += 1
                self.retried += 1
            case Dead(reason, _):
                self.failed += 1
                self.dead[reason] += 1
            case Cancelled():
                self.cancelled += 1


class RouteTally:
    """What became of the requests to one route."""

    __slots__ = ("codes", "name", "quiet", "timed", "took")

    def __init__(self, name: str, *, quiet: bool = False, timed: bool = True) -> None:
        self.name = name
        """Method and path, with the names of its variables."""
        self.quiet = quiet
        """Its requests are nothing that happens: probes and scrapes."""
        self.timed = timed
        """It says something how long they take: not so of streams."""
        self.codes: Counter[int] = Counter()
        self.took = Histogram()
        """Seconds from the head of a request until its answer was made, or written where it is written at once."""

    def counts(self) -> Counts:
        """Return what is not 0."""
        codes = {(f"http {self.name} {code}", ""): count for code, count in self.codes.items()}
        return codes | _histogram(f"took {self.name}", self.took, "")


class Tally:
    """Everything that a process counts."""

    def __init__(self) -> None:
        self._queues: dict[str, QueueTally] = {}
        self._other = QueueTally(OTHER)
        self.routes: list[RouteTally] = []

    def queue(self, name: str, *, consumed: bool = False) -> QueueTally:
        """Return the tally of a queue. One that is `consumed` always has its own: there are as many as handlers."""
        found = self._queues.get(name)
        if found is None:
            if len(self._queues) >= NAMES and not consumed:
                return self._other
            found = self._queues[name] = QueueTally(name)
        return found

    def sent(self, queue: str, count: int) -> None:
        """Count messages that Redis has. Once a batch."""
        if count:
            self.queue(queue).sent += count

    def route(self, name: str, *, quiet: bool = False, timed: bool = True) -> RouteTally:
        """Return a new tally for a route."""
        self.routes.append(RouteTally(name, quiet=quiet, timed=timed))
        return self.routes[-1]

    @property
    def queues(self) -> list[QueueTally]:
        """The tallies of all queues."""
        return [*self._queues.values(), self._other]

    def counts(self) -> Counts:
        """Return everything that is not 0."""
        found: Counts = {}
        for queue in self.queues:
            found |= queue.counts()
        for route in self.routes:
            found |= route.counts()
        return found


def _histogram(name: str, histogram: Histogram, queue: str) -> Counts:
    counts = {(f"{name} {bucket}", queue): count for bucket, count in histogram.by_bucket().items()}
    return {**counts, (f"{name} us", queue): int(histogram.sum_s * 1e6)} if counts else {}
