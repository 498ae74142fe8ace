"""What happened to queues lately: in steps of 10 s for two minutes, of a minute for a day, over all processes.

The counters are kept by the scripts as they happen; one process at a time samples the depths and writes the minutes
(`reports`). Read by the web.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from mqservice import keys, scripts
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.histogram import Histogram
from mqservice.queue_views import RUN
from mqservice.rates import PERIOD_S

Range = Literal["2m", "1h", "24h"]


class Stats(Struct, frozen=True):
    """What happened in each step of a range, oldest first: columns of one length.

    Depths are as they were sampled, the last time within the step. The last step of `2m` is the present one, and not
    over. Where nothing happened, or no process ran to note it, there are zeros.
    """

    range: Range
    step_s: int
    at_ms: list[int]
    """When each step began."""
    in_per_s: list[float]
    done_per_s: list[float]
    failed_per_s: list[float]
    died_per_s: list[float]
    ready: list[int]
    active: list[int]
    scheduled: list[int]
    dead: list[int]
    p50_ms: list[float | None]
    """Of how long handlers ran; None where none ran."""
    p95_ms: list[float | None]


class _Span(NamedTuple):
    step_s: int
    steps: int


_SPANS: dict[str, _Span] = {"2m": _Span(PERIOD_S, 12), "1h": _Span(60, 60), "24h": _Span(60, 1440)}
_MINUTES = msgspec.json.Decoder(dict[str, int])
_COUNTERS = {"in_per_s": "sent", "done_per_s": "done", "failed_per_s": "failed", "died_per_s": "died"}
_DEPTHS = ("ready", "active", "scheduled", "dead")

Step = dict[str, int]
"""Counters, depths and `run:<bucket>` of one queue in one step."""


class History:
    """The history of queues."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def sample(self, queue: QueueOptions) -> None:
        """Note how deep a queue is, and what happened in the last minute if nobody has yet. 1 round trip."""
        await self._connections.run(scripts.SAMPLE, queue.key, [])

    async def stats(self, range_: Range, queues: Sequence[QueueOptions]) -> Stats:
        """Return the sums over some queues. 1 round trip, and 1 a queue."""
        span = _SPANS[range_]
        seconds, _ = await self._connections.guard(self._connections.commands.time)
        last = seconds // span.step_s - (1 if range_ != "2m" else 0)
        numbers = range(last - span.steps + 1, last + 1)
        read = self._periods if range_ == "2m" else self._minutes
        sums: list[Step] = [{} for _ in numbers]
        for found in asyncio.as_completed([read(queue.key, numbers) for queue in queues]):
            for step, more in zip(sums, await found, strict=True):
                for name, value in more.items():
                    step[name] = step.get(name, 0) + value
        return _stats(range_, span.step_s, numbers, sums)

    async def _periods(self, list_key: str, numbers: Sequence[int]) -> list[Step]:
        async def read() -> list[dict[bytes, bytes]]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for number in numbers:
                    pipeline.hgetall(keys.part(list_key, f"rate:{number}"))
                return await pipeline.execute()

        counters = await self._connections.guard(read)
        return [{name.decode(): int(value) for name, value in period.items()} for period in counters]

    async def _minutes(self, list_key: str, numbers: Sequence[int]) -> list[Step]:
        hours = range(numbers[0] // 60, numbers[-1] // 60 + 1)

        async def read() -> list[dict[bytes, bytes]]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for hour in hours:
                    pipeline.hgetall(keys.part(list_key, f"history:{hour}"))
                return await pipeline.execute()

        found = dict(zip(hours, await self._connections.guard(read), strict=True))
        stored = [found[number // 60].get(b"%d" % (number % 60)) for number in numbers]
        return [_MINUTES.decode(minute) if minute else {} for minute in stored]


def _stats(range_: Range, step_s: int, numbers: Sequence[int], steps: Sequence[Step]) -> Stats:
    runs = [_runs(step) for step in steps]
    columns: dict[str, list[Any]] = {
        column: [round(step.get(counter, 0) / step_s, 3) for step in steps] for column, counter in _COUNTERS.items()
    }
    columns |= {state: [step.get(state, 0) for step in steps] for state in _DEPTHS}
    return Stats(
        range=range_,
        step_s=step_s,
        at_ms=[number * step_s * 1000 for number in numbers],
        p50_ms=[run.quantile_ms(0.5) for run in runs],
        p95_ms=[run.quantile_ms(0.95) for run in runs],
        **columns,
    )


def _runs(step: Mapping[str, int]) -> Histogram:
    prefix = RUN.decode()
    return Histogram({int(name[len(prefix) :]): n for name, n in step.items() if name.startswith(prefix)})
