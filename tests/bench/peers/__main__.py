"""`make bench-peers`: the same no-op job through other queues, on one server, with ours in between.

One JSON line a peer on stdout, a table on stderr. A peer's ratio is to the mean of our own runs just before and just
after it: the machine drifts twofold within minutes.
"""

import argparse
import contextlib
import json
import socket
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio
import uvloop
from rich.console import Console
from rich.table import Table

from mqservice.embedded import private_server
from tests.bench.lab import IN_MEMORY, server_words, slug
from tests.bench.peers.catalogue import OURS, PEERS, Peer
from tests.bench.peers.environments import command, run

RUN_S = 150.0
BETWEEN = 3
"""Peers between two runs of ours."""
KINDS = ("drain_per_s", "send_per_s", "batch_per_s")

Rates = dict[str, float]


@dataclass
class Row:
    """A peer and what its rounds came to."""

    peer: Peer
    rates: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    ratios: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, rates: Rates, ours: Rates) -> None:
        for kind, rate in rates.items():
            self.rates[kind].append(rate)
            if ours.get(kind):
                self.ratios[kind].append(ours[kind] / rate)

    def rate(self, kind: str) -> float:
        """Return the median; 0 when there is none."""
        return statistics.median(self.rates[kind]) if self.rates[kind] else 0.0

    def ratio(self, kind: str) -> float:
        """Return ours / theirs."""
        return statistics.median(self.ratios[kind]) if self.ratios[kind] else 0.0

    def of_bests(self, kind: str, ours: "Row") -> float:
        """Return our best run / their best run: steadier while others load the machine."""
        return max(ours.rates[kind]) / max(self.rates[kind]) if ours.rates[kind] and self.rates[kind] else 0.0

    def line(self, ours: "Row") -> dict[str, object]:
        """Return the row as its JSON line says it."""
        figures: dict[str, object] = {}
        for kind in KINDS:
            if self.rates[kind]:
                figures |= {kind: round(self.rate(kind)), f"best_{kind}": round(max(self.rates[kind]))}
            if self.ratios[kind]:
                figures[f"ours_{kind}_ratio"] = round(self.ratio(kind), 2)
                figures[f"ours_{kind}_ratio_of_bests"] = round(self.of_bests(kind, ours), 2)
        return {"peer": self.peer.name, **figures, "guarantee": self.peer.guarantee}


class Bench:
    """One server, all peers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = redis.asyncio.from_url(url)

    async def measure(self, peer: Peer, words: Sequence[str], scale: float) -> Rates:
        """Drain and send once. What fails is said and left out."""
        rates: Rates = {}
        for do, count in (("drain", peer.drained), ("send", peer.sent)):
            if not count:
                continue
            await self._redis.flushall()
            wish = {"url": self._url, "do": do, "count": max(1000, int(count * scale)), **peer.options}
            try:
                output = await run([*words, json.dumps(wish)], RUN_S)
                rates |= json.loads(output.strip().splitlines()[-1])
            except (RuntimeError, TimeoutError, IndexError, ValueError) as error:
                print(f"failed: {peer.name}, {do}: {error!r}", file=sys.stderr, flush=True)
        return rates

    async def round(self, ready: Sequence[tuple[Row, list[str]]], ours: tuple[Row, list[str]], scale: float) -> None:
        """Measure everybody once, ours before, after, and in between."""
        row, words = ours
        before = await self.measure(row.peer, words, scale)
        row.add(before, {})
        for first in range(0, len(ready), BETWEEN):
            group = ready[first : first + BETWEEN]
            found = [await self.measure(their.peer, theirs, scale) for their, theirs in group]
            after = await self.measure(row.peer, words, scale)
            row.add(after, {})
            mean = {kind: (before[kind] + after[kind]) / 2 for kind in KINDS if kind in before and kind in after}
            for (their, _), rates in zip(group, found, strict=True):
                their.add(rates, mean)
            before = after

    async def aclose(self) -> None:
        await self._redis.aclose()


@contextlib.asynccontextmanager
async def reachable_server():
    """Run a private server that listens on TCP too, since not all peers know unix sockets; yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with private_server(("--port", str(port), "--bind", "127.0.0.1", *IN_MEMORY)):
        yield f"redis://127.0.0.1:{port}/0"


async def bench(peers: Sequence[Peer], rounds: int, scale: float) -> list[Row]:
    """Build what is missing, then measure in rounds."""
    ready = []
    for peer in peers:
        print(f"environment: {peer.name}", file=sys.stderr, flush=True)
        if words := await command(peer):
            ready.append((Row(peer), words))
    ours = (Row(OURS), await command(OURS) or [])
    print(await server_words(), file=sys.stderr, flush=True)
    async with reachable_server() as url:
        run_all = Bench(url)
        try:
            for number in range(rounds):
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                await run_all.round(ready, ours, scale)
        finally:
            await run_all.aclose()
    return [ours[0], *(row for row, _ in ready)]


def table(rows: Sequence[Row]) -> None:
    """Print all rates and ratios on stderr."""
    grid = Table(title="messages a second, medians; x: ours / theirs (of the best runs)", title_justify="left")
    for name in ("queue", "drain", "x", "send, 100 callers", "x", "batches of 1,000", "x"):
        grid.add_column(name, justify="left" if name == "queue" else "right")
    grid.add_column("when a worker dies", overflow="fold")
    for row in rows:
        cells = []
        for kind in KINDS:
            cells.append(f"{row.rate(kind):,.0f}" if row.rates[kind] else "")
            cells.append(f"{row.ratio(kind):.1f} ({row.of_bests(kind, rows[0]):.1f})" if row.ratios[kind] else "")
        grid.add_row(row.peer.name, *cells, row.peer.guarantee)
    Console(stderr=True, width=170).print(grid)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return a line for each bound that this run can judge."""
    peers = rows[1:]
    python = [row for row in peers if not row.peer.is_node]
    node = [row for row in peers if row.peer.is_node]
    lines = []
    for what, kind, among, bound in (
        (
            "drain / best Python peer, at least once, results kept",
            KINDS[0],
            [r for r in python if r.peer.at_least_once],
            30,
        ),
        ("drain / BullMQ on Node", KINDS[0], node, 5),
        ("send / best Python peer", KINDS[1], python, 10),
        ("batch / BullMQ's addBulk on Node", KINDS[2], node, 8),
    ):
        found = [row for row in among if row.ratios[kind]]
        if found:
            best = max(found, key=lambda row: row.rate(kind))
            met = "met" if best.ratio(kind) >= bound else "NOT MET"
            of_bests = best.of_bests(kind, rows[0])
            lines.append(f"{what} ({best.peer.name}): {best.ratio(kind):.1f} ({of_bests:.1f}), >= {bound} {met}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    names = {slug(peer.name): peer for peer in PEERS}
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(names), help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="times the messages of a full run")
    parser.add_argument("--save", metavar="FILE", type=Path)
    args = parser.parse_args()
    peers = [names[name] for name in args.only] if args.only else list(PEERS)
    rows = uvloop.run(bench(peers, args.rounds, args.scale))
    text = "".join(json.dumps(row.line(rows[0]), ensure_ascii=False) + "\n" for row in rows)
    print(text, end="", flush=True)
    if args.save:
        args.save.write_text(text)
    table(rows)
    for line in verdicts(rows):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
