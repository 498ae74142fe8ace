"""The processes that run, by what each says of itself once a second.

Written by `reports`, read by the web. A report is kept for 10 s: a process that is killed is gone by then.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Struct

from mqservice import keys, scripts
from mqservice.connections import Connections
from mqservice.message import JSON
from mqservice.records import number, text


class Report(Struct, frozen=True):
    """What a process says of itself."""

    name: str
    host: str
    pid: int
    started_at_ms: int
    queues: list[str]
    """Those that it consumes."""
    loop_lag_ms: float
    """The longest that its event loop was late in the last ten seconds."""
    redis_ms: float
    """One round trip."""
    held: int
    """Messages that it works on."""
    runs: int
    """Handler runs since it started."""
    streams: int
    """Open event streams."""
    rss_bytes: int
    published_per_s: dict[str, float] = {}
    """By channel, over the last 10 s."""
    cpu_s: float = 0.0
    """CPU time that it has used."""
    silent_s: dict[str, float] = {}
    """For how long Redis has not answered its consumer, by queue."""


class ProcessView(Report, frozen=True):
    """A process that runs, and when it was last heard of by the clock of Redis."""

    seen_at_ms: int = 0


class Telling(NamedTuple):
    """What a process has counted since its last telling."""

    number: int
    counts: Mapping[tuple[str, str], int]
    """By field and queue, "" where it is of the whole process."""


class Totals(NamedTuple):
    """What all processes have counted."""

    counts: dict[str, int]
    """By field, and by `field@queue`."""
    names: set[str]
    """The queues that are told apart."""


_REPORT = msgspec.json.Decoder(ProcessView)


class Processes:
    """All processes at this Redis."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def put(self, report: Report, more: Telling | None = None) -> bool:
        """Note a report, and what the process has counted. True: it is to sample the queues now. 1 round trip."""
        args = [report.name, JSON.encode(report), *_counts(more)]
        answer: int = await self._connections.run(scripts.REPORT, keys.PROCESSES, args)
        return answer == 1

    async def leave(self, name: str, more: Telling | None = None) -> None:
        """Forget a process that stops, but for what it has counted. 1 round trip."""
        await self._connections.run(scripts.REPORT, keys.PROCESSES, [name, b"", *_counts(more)])

    async def totals(self) -> Totals:
        """Return what all processes have counted since 30 days without any. 1 round trip."""

        async def read() -> list[Any]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                pipeline.hgetall(keys.totals())
                pipeline.smembers(keys.total_names())
                return await pipeline.execute()

        fields, names = await self._connections.guard(read)
        return Totals({text(field): number(count) for field, count in fields.items()}, {text(name) for name in names})

    async def forget(self, queue: str) -> None:
        """Count no longer what was told of a queue that is deleted. 2 round trips."""
        redis = self._connections.commands

        async def read() -> list[bytes]:
            return cast("list[bytes]", await redis.hkeys(keys.totals()))

        fields = await self._connections.guard(read)
        told = [field for field in fields if field.endswith(b"@" + queue.encode())]

        async def drop() -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                if told:
                    pipeline.hdel(keys.totals(), *told)
                pipeline.srem(keys.total_names(), queue)
                await pipeline.execute()

        await self._connections.guard(drop)

    async def all(self) -> list[ProcessView]:
        """Return those heard of in the last 10 s, by name. 2 round trips."""
        redis = self._connections.commands

        async def read() -> list[tuple[bytes, float]]:
            return cast("list[tuple[bytes, float]]", await redis.zrange(keys.PROCESSES, 0, -1, withscores=True))

        at_ms = {name.decode(): int(score) for name, score in await self._connections.guard(read)}
        if not at_ms:
            return []
        names = sorted(at_ms)
        reports = await self._connections.guard(lambda: redis.mget([keys.report(name) for name in names]))
        return [
            msgspec.structs.replace(_REPORT.decode(report), seen_at_ms=at_ms[name])
            for name, report in zip(names, reports, strict=True)
            if report is not None
        ]


def _counts(telling: Telling | None) -> list[Any]:
    if telling is None or not telling.counts:
        return []
    return [telling.number, *(part for (field, queue), more in telling.counts.items() for part in (field, queue, more))]
