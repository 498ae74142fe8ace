"""The processes that run, by what each says of itself once a second.

Written by `reports`, read by the web. A report is kept for 10 s: a process that is killed is gone by then.
"""

from typing import cast

import msgspec
from msgspec import Struct

from mqservice import keys, scripts
from mqservice.connections import Connections
from mqservice.message import JSON


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


class ProcessView(Report, frozen=True):
    """A process that runs, and when it was last heard of by the clock of Redis."""

    seen_at_ms: int = 0


_REPORT = msgspec.json.Decoder(ProcessView)


class Processes:
    """All processes at this Redis."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def put(self, report: Report) -> bool:
        """Note a report. True: this process is to sample the queues now. 1 round trip."""
        args = [report.name, JSON.encode(report)]
        answer: int = await self._connections.run(scripts.REPORT, keys.PROCESSES, args)
        return answer == 1

    async def leave(self, name: str) -> None:
        """Forget a process that stops. 1 round trip."""
        await self._connections.run(scripts.REPORT, keys.PROCESSES, [name, b""])

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
