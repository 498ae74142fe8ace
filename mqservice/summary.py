"""One line a second that says what went on in it, in place of one a request or message; none when nothing did.

Run by the runtime as one watched task. Reads the tally, so it costs requests and messages nothing.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from mqservice.histogram import Histogram, merged
from mqservice.tally import Tally

log = structlog.get_logger()

EVERY_S = 1.0


class _Moment(NamedTuple):
    """What had been counted by then."""

    requests: int
    refused: int
    errors: int
    sent: int
    failed: int
    dead: int
    took: Histogram
    runs: Histogram


class Summary:
    """Tells what a process has done in each second."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._before = _moment(tally)

    async def run(self) -> None:
        """Write a line for each second in which anything happened, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            if fields := self.fields():
                log.info("traffic", **fields)

    def fields(self) -> dict[str, Any]:
        """Return what has happened since the last call; nothing when nothing has."""
        before, now = self._before, _moment(self._tally)
        self._before = now
        took, runs = now.took.since(before.took.counts), now.runs.since(before.runs.counts)
        fields: dict[str, Any] = {"requests": now.requests - before.requests}
        if fields["requests"]:
            fields |= _quantiles("request", took)
        fields |= {"sent": now.sent - before.sent, "handled": sum(runs.counts)}
        if fields["handled"]:
            fields |= _quantiles("run", runs)
        for name in ("refused", "errors", "failed", "dead"):
            fields[name] = getattr(now, name) - getattr(before, name)
        return {name: value for name, value in fields.items() if value}


def _moment(tally: Tally) -> _Moment:
    routes = [route for route in tally.routes if not route.quiet]
    queues = tally.queues
    return _Moment(
        requests=_count(routes, 0, 1000),
        refused=_count(routes, 400, 500),
        errors=_count(routes, 500, 1000),
        sent=sum(queue.sent for queue in queues),
        failed=sum(queue.failed for queue in queues),
        dead=sum(queue.dead.total() for queue in queues),
        took=merged(route.took for route in routes),
        runs=merged(queue.run for queue in queues),
    )


def _count(routes: Sequence[Any], low: int, high: int) -> int:
    return sum(count for route in routes for code, count in route.codes.items() if low <= code < high)


def _quantiles(name: str, histogram: Histogram) -> dict[str, float | None]:
    """Return median and 95th percentile in ms; None when there are only streams."""
    return {f"{name}_p50_ms": histogram.quantile_ms(0.5), f"{name}_p95_ms": histogram.quantile_ms(0.95)}
