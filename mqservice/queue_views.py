"""Queues at a glance: counts, rates, ages and run times of any number of them in two round trips. Reads only."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from mqservice import keys
from mqservice.broker import MARK
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.histogram import Histogram
from mqservice.rates import PERIOD_S, per_s

CONSUMER_SILENT_MS = 15_000
"""A consumer that has neither claimed nor renewed for so long is not counted."""

RUN = b"run:"
"""In front of the number of a bucket, in the counters of a period; `scripts/runs.lua` writes them."""


class Counts(Struct, frozen=True):
    """Messages per state; done and cancelled count from the queue's beginning."""

    ready: int
    active: int
    scheduled: int
    dead: int
    done: int
    cancelled: int


class Rates(Struct, frozen=True):
    """Events a second over the last 10 s, of all processes."""

    in_per_s: float
    done_per_s: float
    failed_per_s: float


class QueueView(Struct, frozen=True):
    """A queue at a glance. `oldest_s` is the age of the next ready message, None when there is none or it is raw.

    `p50_ms` and `p95_ms` are how long handlers ran, over the last 10 to 20 s; None when none ran.
    """

    name: str
    paused: bool
    counts: Counts
    oldest_s: float | None
    rates: Rates
    consumers: int
    p50_ms: float | None = None
    p95_ms: float | None = None


class Look(NamedTuple):
    """Queues at one moment."""

    at_ms: int
    queues: list[QueueView]
    run_times: list[Histogram]
    """Those of each queue, so that they can be added up."""


async def look(connections: Connections, queues: Sequence[QueueOptions]) -> Look:
    """Return the queues as they are now, in the order given. 2 round trips."""
    depths, (seconds, micros) = await connections.guard(lambda: _depths(connections, queues))
    heads = [depth[_HEAD] for depth in depths]
    rest = await connections.guard(lambda: _rest(connections, queues, heads, seconds, micros))
    now_ms = seconds * 1000 + micros // 1000
    share = 1 - (seconds % PERIOD_S + micros / 1e6) / PERIOD_S
    views, run_times = [], []
    for queue, depth, (present, before, _, consumers, sent) in zip(queues, depths, rest, strict=True):
        runs = run_histogram(present, before)
        run_times.append(runs)
        views.append(_view(queue.name, depth, per_s(present, before, share), runs, consumers, _age_s(sent, now_ms)))
    return Look(now_ms, views, run_times)


def run_histogram(*counters: Mapping[bytes, bytes]) -> Histogram:
    """Return the run times among the counters of some periods."""
    histogram = Histogram()
    for period in counters:
        for name, count in period.items():
            if name.startswith(RUN):
                histogram.counts[int(name[len(RUN) :])] += int(count)
    return histogram


_HEAD = 5


async def _depths(connections: Connections, queues: Sequence[QueueOptions]) -> tuple[list[Any], tuple[int, int]]:
    async with connections.commands.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue.key)
            for state in ("active", "scheduled", "dead"):
                pipeline.zcard(keys.part(queue.key, state))
            pipeline.hgetall(keys.part(queue.key, "info"))
            pipeline.lindex(queue.key, 0)
        pipeline.time()
        *answers, time = await pipeline.execute()
    return _rows(answers, 6), time


async def _rest(
    connections: Connections, queues: Sequence[QueueOptions], heads: Sequence[bytes | None], seconds: int, micros: int
) -> list[Any]:
    """What needs the time and the id of the next message: counters of two periods, consumers, when it was sent."""
    if not queues:
        return []
    silent_ms = seconds * 1000 + micros // 1000 - CONSUMER_SILENT_MS
    async with connections.commands.pipeline(transaction=False) as pipeline:
        for queue, head in zip(queues, heads, strict=True):
            for period in (seconds // PERIOD_S, seconds // PERIOD_S - 1):
                pipeline.hgetall(keys.part(queue.key, f"rate:{period}"))
            pipeline.zremrangebyscore(keys.part(queue.key, "consumers"), "-inf", silent_ms)
            pipeline.zcard(keys.part(queue.key, "consumers"))
            known = head is not None and head.startswith(MARK)
            message_id = head.removeprefix(MARK).decode() if head is not None and known else ""
            pipeline.hget(keys.record(queue.key, message_id), "sent")
        return _rows(await pipeline.execute(), 5)


def _rows(answers: Sequence[Any], width: int) -> list[Any]:
    return [answers[start : start + width] for start in range(0, len(answers), width)]


def _age_s(sent_ms: bytes | None, now_ms: int) -> float | None:
    return (now_ms - int(sent_ms)) / 1000 if sent_ms else None


def _view(
    name: str, depth: Sequence[Any], rates: Mapping[str, float], runs: Histogram, consumers: int, oldest_s: float | None
) -> QueueView:
    ready, active, scheduled, dead, info, _ = depth
    return QueueView(
        name=name,
        paused=b"paused" in info,
        counts=Counts(
            ready=max(0, ready - int(info.get(b"tombstones", 0))),
            active=active,
            scheduled=scheduled,
            dead=dead,
            done=int(info.get(b"done", 0)),
            cancelled=int(info.get(b"cancelled", 0)),
        ),
        oldest_s=oldest_s,
        rates=Rates(rates.get("sent", 0.0), rates.get("done", 0.0), rates.get("failed", 0.0)),
        consumers=consumers,
        p50_ms=runs.quantile_ms(0.5),
        p95_ms=runs.quantile_ms(0.95),
    )
