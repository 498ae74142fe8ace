"""What Prometheus scrapes: of one process from what it counts, or of all from what they tell Redis each second.

Both are the same fields, made into families by the same code. A scrape reads; nothing is counted for it alone. Used
by the web.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import MqError
from mqservice.histogram import BOUNDS_S, Histogram
from mqservice.processes import Processes, Report, Totals
from mqservice.queue_counters import REASONS, counters
from mqservice.queue_views import Look, look
from mqservice.reports import Reporter
from mqservice.tally import NAMES, OTHER, Key

Scope = Literal["process", "all"]

TEXT_TYPE: Final = exposition.CONTENT_TYPE_PLAIN_0_0_4
OPEN_METRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_QUEUES = 1_000
"""So many queues are read at a scrape."""

_PATIENCE_S = 1.0
"""A scrape of one process says what it can when Redis takes longer."""

_COUNTERS: Final = {
    "sent": ("mqservice_messages_sent", "Messages sent, by whatever way."),
    "done": ("mqservice_messages_done", "Messages whose handler returned."),
    "failed": ("mqservice_messages_failed", "Runs that failed, whether tried again or not."),
    "retried": ("mqservice_messages_retried", "Runs that failed and are tried again."),
    "cancelled": ("mqservice_messages_cancelled", "Messages cancelled."),
    "lease_losses": ("mqservice_lease_losses", "Leases lost while the handler ran."),
    "recoveries": ("mqservice_crash_recoveries", "Runs of messages whose process had gone while it had them."),
}
"""Field of a queue → its family."""

_HISTOGRAMS: Final = {
    "run": ("mqservice_handler_run_seconds", "How long handlers ran.", ("queue",)),
    "wait": ("mqservice_message_wait_seconds", "From send to the first start, a delay asked for included.", ("queue",)),
    "took": (
        "mqservice_http_request_duration_seconds",
        "From a request's head to its answer, long polls included, streams not.",
        ("method", "route"),
    ),
}

_BUCKETS: Final = frozenset(str(bucket) for bucket in range(len(BOUNDS_S) + 1))

_OF_REDIS: Final = {
    "redis_outages": ("mqservice_redis_outages", "Times that Redis went away.", 1),
    "redis_reconnects": ("mqservice_redis_reconnects", "Times that Redis came back.", 1),
    "redis_away us": ("mqservice_redis_outage_seconds", "Time without Redis.", 1e-6),
}


class _Scrape(NamedTuple):
    """Everything that one scrape shows."""

    counts: dict[Key, int]
    processes: Sequence[Report]
    look: Look | None
    """None: Redis is away."""
    label: Callable[[str], str]
    """Name of a queue → its label."""
    whole: bool
    """Of all processes, each of which is told apart; else of one, which whoever scrapes knows."""


class Metrics:
    """What there is to scrape. `known` returns the queues that any process has served or sent to."""

    def __init__(
        self, connections: Connections, reporter: Reporter, known: Callable[[], Awaitable[list[QueueOptions]]]
    ) -> None:
        self._connections, self._reporter, self._known = connections, reporter, known

    async def text(self, scope: Scope, *, open_metrics: bool) -> bytes:
        """Return the metrics in Prometheus' text format, or in that of OpenMetrics.

        Of one process without what only Redis knows while that is away; of all: raises Unavailable then. 3 round
        trips for one, 7 for all.
        """
        scrape = await (self._of_all() if scope == "all" else self._of_this())
        # In a thread: a thousand lines take 3 ms, and there may be ten thousand.
        return await asyncio.to_thread(_rendered, scrape, open_metrics)

    async def _of_this(self) -> _Scrape:
        seen = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                seen = await look(self._connections, (await self._known())[:_QUEUES])
        except (MqError, TimeoutError):
            pass  # the rest is what one wants to know then
        counts = self._reporter.counts()
        named = {queue for _, queue in counts if queue}
        return _Scrape(counts, [self._reporter.now()], seen, _labels(named), whole=False)

    async def _of_all(self) -> _Scrape:
        queues = (await self._known())[:_QUEUES]
        seen = await look(self._connections, queues)
        counted = await counters(self._connections, queues)
        processes = Processes(self._connections)
        reports, totals = await processes.all(), await processes.totals()
        label = _labels(totals.names)
        names = [label(queue.name) for queue in queues]
        return _Scrape(_summed(totals, zip(names, counted, strict=True)), reports[:NAMES], seen, label, whole=True)


def _labels(named: Iterable[str]) -> Callable[[str], str]:
    """Return what gives a queue its label: its name, or `OTHER` beyond the first so many."""
    known = {*named} - {OTHER}

    def label(queue: str) -> str:
        if queue not in known:
            if len(known) >= NAMES:
                return OTHER
            known.add(queue)
        return queue

    return label


def _summed(totals: Totals, counted: Iterable[tuple[str, Mapping[str, int]]]) -> dict[Key, int]:
    """Return what processes have told and scripts have counted, by label, as one process counts it."""
    counts: dict[Key, int] = {}
    for stored, count in totals.counts.items():
        field, _, queue = stored.partition("@")
        counts[field, queue] = count
    for queue, fields in counted:
        for field, count in fields.items():
            if count:
                counts[field, queue] = counts.get((field, queue), 0) + count
    return counts


class _Families(Collector):
    """The families of one scrape."""

    def __init__(self, scrape: _Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        scrape = self._scrape
        build = GaugeMetricFamily("mqservice_build_info", "The version that runs.", labels=("version",))
        build.add_metric((version("mqservice"),), 1)
        yield build
        seen = () if scrape.look is None else (scrape.label(view.name) for view in scrape.look.queues)
        yield from _counters(scrape.counts, {*seen, *(queue for _, queue in scrape.counts if queue)})
        yield from _histograms(scrape.counts)
        if scrape.look is not None:
            yield from _depths(scrape.look, scrape.label)
        yield GaugeMetricFamily("mqservice_redis_up", "Whether Redis answers.", float(scrape.look is not None))
        yield from _of_processes(scrape.processes, scrape.label, whole=scrape.whole)


def _rendered(scrape: _Scrape, open_metrics: bool) -> bytes:
    families = _Families(scrape)
    if open_metrics:
        text: bytes = openmetrics.generate_latest(families, version="1.0.0")  # type: ignore[no-untyped-call]
        return text
    return exposition.generate_latest(families)


def _counters(counts: dict[Key, int], queues: Iterable[str]) -> Iterator[Metric]:
    """Count from 0 what is known of each queue: of a counter that begins at 1 Prometheus sees no increase."""
    families = {field: CounterMetricFamily(*its, labels=("queue",)) for field, its in _COUNTERS.items()}
    died = CounterMetricFamily(
        "mqservice_messages_died",
        "Messages that became dead letters. Those found crashed or expired by a claim: only of all processes.",
        labels=("queue", "reason"),
    )
    http = CounterMetricFamily(
        "mqservice_http_requests", "Requests answered. 499: the client left.", labels=("method", "route", "code")
    )
    for queue in queues:
        for field, family in families.items():
            family.add_metric((queue,), counts.get((field, queue), 0))
        for reason in REASONS:
            died.add_metric((queue, reason), counts.get((f"dead {reason}", queue), 0))
    for (field, _), count in counts.items():
        kind, _, labels = field.partition(" ")
        if kind == "http":
            http.add_metric(labels.split(" "), count)
    yield from (*families.values(), died, http)
    for field, (name, text, scale) in _OF_REDIS.items():
        yield CounterMetricFamily(name, text, counts.get((field, ""), 0) * scale)


def _histograms(counts: dict[Key, int]) -> Iterator[Metric]:
    found: dict[tuple[str, tuple[str, ...]], Histogram] = {}
    for (field, queue), count in counts.items():
        kind, *labels = field.split(" ")
        if kind not in _HISTOGRAMS:
            continue
        bucket = labels.pop()
        histogram = found.setdefault((kind, (queue,) if queue else tuple(labels)), Histogram())
        if bucket == "us":
            histogram.sum_s = count / 1e6
        elif bucket in _BUCKETS:
            histogram.counts[int(bucket)] = count
    families = {
        kind: HistogramMetricFamily(name, text, labels=names) for kind, (name, text, names) in _HISTOGRAMS.items()
    }
    for (kind, values), histogram in found.items():
        families[kind].add_metric(values, _cumulative(histogram.counts), histogram.sum_s)
    yield from families.values()


def _cumulative(buckets: Sequence[int]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"), buckets, strict=True):
        total += count
        found.append((bound, total))
    return found


def _depths(look: Look, label: Callable[[str], str]) -> Iterator[Metric]:
    depths: dict[tuple[str, str], int] = {}
    others: dict[str, dict[str, float]] = {"oldest": {}, "paused": {}, "consumers": {}}
    for view in look.queues:
        queue = label(view.name)
        for state in ("ready", "active", "scheduled", "dead"):
            depths[queue, state] = depths.get((queue, state), 0) + getattr(view.counts, state)
        seen = {"oldest": view.oldest_s or 0.0, "paused": float(view.paused), "consumers": float(view.consumers)}
        for name, value in seen.items():
            others[name][queue] = max(others[name].get(queue, 0.0), value)
    family = GaugeMetricFamily("mqservice_messages", "Messages of a queue in a state.", labels=("queue", "state"))
    for labels, depth in depths.items():
        family.add_metric(labels, depth)
    yield family
    yield _by_queue("mqservice_oldest_ready_seconds", "Age of the next ready message; 0: none.", others["oldest"])
    yield _by_queue("mqservice_queue_paused", "Whether a queue hands out nothing.", others["paused"])
    yield _by_queue("mqservice_queue_consumers", "Consumers of a queue, in all processes.", others["consumers"])


def _by_queue(name: str, text: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("queue",))
    for queue, value in values.items():
        family.add_metric((queue,), value)
    return family


def _of_processes(processes: Sequence[Report], label: Callable[[str], str], *, whole: bool) -> Iterator[Metric]:
    silent: dict[str, float] = {}
    for process in processes:
        for queue, silent_s in process.silent_s.items():
            silent[label(queue)] = max(silent.get(label(queue), 0.0), silent_s)
    yield _by_queue("mqservice_canary_age_seconds", "Time since Redis last answered a queue's consumer.", silent)
    if whole:
        yield GaugeMetricFamily("mqservice_processes", "Processes that run.", len(processes))

    def each(kind: type[Any], name: str, text: str, value: Callable[[Any], float]) -> Metric:
        family: Metric = kind(name, text, labels=("process",) if whole else ())
        for process in processes:
            family.add_metric((process.name,) if whole else (), value(process))  # type: ignore[attr-defined]
        return family

    gauge, counter = GaugeMetricFamily, CounterMetricFamily
    yield each(gauge, "mqservice_messages_held", "Messages that a process works on.", lambda p: p.held)
    yield each(gauge, "mqservice_event_streams", "Clients of event streams.", lambda p: p.streams)
    yield each(
        gauge,
        "mqservice_event_loop_lag_seconds",
        "Longest lag of the event loop in 10 s.",
        lambda p: p.loop_lag_ms / 1e3,
    )
    yield each(gauge, "mqservice_redis_round_trip_seconds", "The last report to Redis.", lambda p: p.redis_ms / 1e3)
    yield each(counter, "process_cpu_seconds", "CPU time used.", lambda p: p.cpu_s)
    yield each(gauge, "process_resident_memory_bytes", "Resident memory.", lambda p: p.rss_bytes)
    yield each(gauge, "process_start_time_seconds", "Start, since the epoch.", lambda p: p.started_at_ms / 1e3)
