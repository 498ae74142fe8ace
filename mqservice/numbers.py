"""The numbers of a whole installation at one moment: queues, processes, channels, Redis. Read by the web's streams."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.histogram import merged
from mqservice.processes import Processes, ProcessView
from mqservice.queue_views import Look, QueueView, look


class Totals(Struct, frozen=True):
    """All queues together. `p95_ms` of how long handlers ran, None when none ran; `oldest_s` of any ready message."""

    ready: int
    active: int
    scheduled: int
    dead: int
    in_per_s: float
    done_per_s: float
    failed_per_s: float
    p95_ms: float | None
    oldest_s: float | None


class ChannelView(Struct, frozen=True):
    """A channel. `in_per_s`: published by these processes; `receivers`: connections that follow it by its name."""

    name: str
    in_per_s: float
    receivers: int


class RedisView(Struct, frozen=True):
    """The server. `max_memory_bytes`: 0 when there is no limit."""

    version: str
    used_memory_bytes: int
    max_memory_bytes: int
    away_s: float | None = None


class Numbers(Struct, frozen=True):
    """Everything at a glance, by the clock of Redis."""

    at_ms: int
    queues: list[QueueView]
    totals: Totals
    processes: list[ProcessView]
    channels: list[ChannelView]
    redis: RedisView


class Outage(Struct, frozen=True):
    """Redis does not answer, for so long already."""

    away_s: float
    error: str


async def numbers(connections: Connections, queues: Sequence[QueueOptions], channels: dict[str, str]) -> Numbers:
    """Read all numbers. `channels`: the names that are always shown, with their Redis channels. 6 round trips.

    Raises MqError.
    """
    seen = await look(connections, queues)
    processes = await Processes(connections).all()
    return Numbers(
        at_ms=seen.at_ms,
        queues=seen.queues,
        totals=_totals(seen),
        processes=processes,
        channels=await _channels(connections, processes, channels),
        redis=await _redis(connections),
    )


def _totals(seen: Look) -> Totals:
    counts = [queue.counts for queue in seen.queues]
    rates = [queue.rates for queue in seen.queues]
    return Totals(
        ready=sum(its.ready for its in counts),
        active=sum(its.active for its in counts),
        scheduled=sum(its.scheduled for its in counts),
        dead=sum(its.dead for its in counts),
        in_per_s=sum(its.in_per_s for its in rates),
        done_per_s=sum(its.done_per_s for its in rates),
        failed_per_s=sum(its.failed_per_s for its in rates),
        p95_ms=merged(seen.run_times).quantile_ms(0.95),
        oldest_s=max((queue.oldest_s for queue in seen.queues if queue.oldest_s is not None), default=None),
    )


async def _channels(
    connections: Connections, processes: Sequence[ProcessView], known: dict[str, str]
) -> list[ChannelView]:
    in_per_s = Counter[str](dict.fromkeys(known, 0))
    for process in processes:
        in_per_s.update(process.published_per_s)
    names = sorted(in_per_s)
    redis_names = [known.get(name, name) for name in names]
    counted = await connections.guard(lambda: connections.commands.pubsub_numsub(*redis_names)) if names else []
    receivers = [count for _, count in counted]
    return [ChannelView(name, in_per_s[name], n) for name, n in zip(names, receivers, strict=True)]


async def _redis(connections: Connections) -> RedisView:
    info: dict[str, Any] = await connections.guard(lambda: connections.commands.info("memory"))
    return RedisView(
        version=await connections.version(),
        used_memory_bytes=info.get("used_memory", 0),
        max_memory_bytes=info.get("maxmemory", 0),
    )
