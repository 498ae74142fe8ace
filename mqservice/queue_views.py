"""Queues at a glance: counts, rates, ages and run times of any number of them in two round trips. Reads only.

A queue that cannot be told, because a stranger has put something else into one of its keys, hides no other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from mqservice import keys, scripts
from mqservice.broker import MARK
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import WrongType
from mqservice.histogram import BOUNDS_S, Histogram
from mqservice.rates import PERIOD_S, per_s
from mqservice.records import number

CONSUMER_SILENT_MS = 15_000
"""A consumer that has neither claimed nor renewed for so long is not counted."""

RUN = b"run:"
"""In front of the number of a bucket, in the counters of a period; `scripts/runs.lua` writes them."""

_INFO: Final = ("paused", "tombstones", "done", "cancelled")


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
    fault: str | UnsetType = UNSET
    """Why nothing can be told, and all else is 0: a key of the queue holds something else."""


class Look(NamedTuple):
    """Queues at one moment."""

    at_ms: int
    queues: list[QueueView]
    run_times: list[Histogram]
    """Those of each queue, so that they can be added up."""


async def look(connections: Connections, queues: Sequence[QueueOptions]) -> Look:
    """Return the queues as they are now, in the order given. 2 round trips."""
    depths, (seconds, micros) = await _depths(connections, queues)
    heads = [_head_id(depth[_HEAD]) for depth in depths]
    rest = await _rest(connections, queues, heads, seconds, micros)
    now_ms = seconds * 1000 + micros // 1000
    share = 1 - (seconds % PERIOD_S + micros / 1e6) / PERIOD_S
    views, run_times = [], []
    for queue, depth, (present, before, _, consumers, sent) in zip(queues, depths, rest, strict=True):
        if fault := _fault(*depth, present, before, consumers):
            views.append(_faulty(queue.name, fault))
            run_times.append(Histogram())
            continue
        runs = run_histogram(present, before)
        run_times.append(runs)
        views.append(_view(queue.name, depth, per_s(present, before, share), runs, consumers, _age_s(sent, now_ms)))
    return Look(now_ms, views, run_times)


def run_histogram(*counters: Mapping[bytes, bytes]) -> Histogram:
    """Return the run times among the counters of some periods."""
    histogram = Histogram()
    for period in counters:
        for name, count in period.items():
            bucket = run_bucket(name)
            if bucket is not None:
                histogram.counts[bucket] += number(count)
    return histogram


def run_bucket(counter: bytes) -> int | None:
    """Return the bucket of a histogram that a counter is of; None for any other counter."""
    bucket = counter.removeprefix(RUN)
    if bucket == counter or not bucket.isdigit() or len(bucket) > _DIGITS or int(bucket) > len(BOUNDS_S):
        return None
    return int(bucket)


_HEAD: Final = 5
_DIGITS: Final = 3


async def _depths(connections: Connections, queues: Sequence[QueueOptions]) -> tuple[list[Any], tuple[int, int]]:
    def fill(pipeline: Any) -> None:
        for queue in queues:
            pipeline.llen(queue.key)
            for state in ("active", "scheduled", "dead"):
                pipeline.zcard(keys.part(queue.key, state))
            pipeline.hmget(keys.part(queue.key, "info"), _INFO)
            # The head of the list, or its size when it is no id of ours but a body, which may be of any size.
            pipeline.evalsha(scripts.LOOK.sha, 1, queue.key, 0, 1, keys.NAME_CHARS + len(MARK), 1)
        pipeline.time()

    *answers, time = await connections.ask(fill, scripts.LOOK)
    return _rows(answers, 6), time


async def _rest(
    connections: Connections, queues: Sequence[QueueOptions], heads: Sequence[bytes], seconds: int, micros: int
) -> list[Any]:
    """What needs the time and the id of the next message: counters of two periods, consumers, when it was sent."""
    if not queues:
        return []
    silent_ms = seconds * 1000 + micros // 1000 - CONSUMER_SILENT_MS

    def fill(pipeline: Any) -> None:
        for queue, head in zip(queues, heads, strict=True):
            for period in (seconds // PERIOD_S, seconds // PERIOD_S - 1):
                pipeline.hgetall(keys.part(queue.key, f"rate:{period}"))
            pipeline.zremrangebyscore(keys.part(queue.key, "consumers"), "-inf", silent_ms)
            pipeline.zcard(keys.part(queue.key, "consumers"))
            pipeline.hget(keys.listed_record(queue.key, head), "sent")

    return _rows(await connections.ask(fill), 5)


def _rows(answers: Sequence[Any], width: int) -> list[Any]:
    return [answers[start : start + width] for start in range(0, len(answers), width)]


def _head_id(entries: Any) -> bytes:
    """Return the id at the head of the list; empty when there is none, or no id."""
    if isinstance(entries, WrongType) or not entries or not isinstance(entries[0], bytes):
        return b""
    return entries[0].removeprefix(MARK) if entries[0].startswith(MARK) else b""


def _fault(*answers: Any) -> str:
    return next((str(answer) for answer in answers if isinstance(answer, WrongType)), "")


def _age_s(sent_ms: Any, now_ms: int) -> float | None:
    return max(0, now_ms - number(sent_ms)) / 1000 if isinstance(sent_ms, bytes) else None


def _faulty(name: str, fault: str) -> QueueView:
    nothing = Counts(ready=0, active=0, scheduled=0, dead=0, done=0, cancelled=0)
    return QueueView(name, False, nothing, None, Rates(0.0, 0.0, 0.0), 0, fault=fault)


def _view(
    name: str, depth: Sequence[Any], rates: Mapping[str, float], runs: Histogram, consumers: int, oldest_s: float | None
) -> QueueView:
    ready, active, scheduled, dead, info, _ = depth
    paused, tombstones, done, cancelled = info
    return QueueView(
        name=name,
        paused=paused is not None,
        counts=Counts(
            ready=max(0, ready - number(tombstones)),
            active=active,
            scheduled=scheduled,
            dead=dead,
            done=number(done),
            cancelled=number(cancelled),
        ),
        oldest_s=oldest_s,
        rates=Rates(rates.get("sent", 0.0), rates.get("done", 0.0), rates.get("failed", 0.0)),
        consumers=consumers,
        p50_ms=runs.quantile_ms(0.5),
        p95_ms=runs.quantile_ms(0.95),
    )
