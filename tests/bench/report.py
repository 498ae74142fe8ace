"""What is printed: one JSON line a figure while it is measured, a table at the end."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from tests.bench.running import ITSELF, Judged, Measured

UNITS = {
    "/s": "{:,.0f}/s",
    "ms": "{:.2f} ms",
    "µs": "{:.2f} µs",
    "calls": "{:.4f}",
    "bytes": "{:,.0f} B",
    "x": "{:.2f}",
}


def line(family: str, measured: Measured) -> dict[str, Any]:
    """Return one figure as what its JSON line says."""
    return {
        "family": family,
        "figure": measured.figure.name,
        "unit": measured.figure.unit,
        "median": _short(measured.median),
        "best": _short(measured.best),
        "rounds": [_short(value) for value in measured.rounds],
        "ratios": [
            {
                "to": judged.name.removeprefix("/ "),
                "ratio": _short(judged.value),
                "bound": judged.bound,
                "met": judged.met,
            }
            for judged in measured.judged
        ],
    }


def write(lines: Iterable[Mapping[str, Any]], *streams: TextIO) -> None:
    for entry in lines:
        for stream in streams:
            print(json.dumps(entry, ensure_ascii=False), file=stream, flush=True)


def saved(path: Path) -> dict[str, dict[str, Any]]:
    """Return a saved run: figure → its line."""
    lines = [json.loads(text) for text in path.read_text().splitlines() if text.startswith("{")]
    return {entry["figure"]: entry for entry in lines if "figure" in entry}


def table(results: Sequence[tuple[str, Measured]], before: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Print all figures on stderr, with the ratios that count; `before` is what --compare names."""
    title = "medians of the rounds; ratios are the medians of each round's own; no append-only file but where said"
    grid = Table(title=title, title_justify="left")
    grid.add_column("figure")
    grid.add_column("median", justify="right")
    grid.add_column("best", justify="right")
    grid.add_column("max/min", justify="right")
    grid.add_column("ratio to", overflow="fold")
    grid.add_column("ratio", justify="right")
    grid.add_column("of bests", justify="right")
    if before is not None:
        grid.add_column("figure, ratio / saved", justify="right")
    grid.add_column("bound")
    family = ""
    for name, measured in results:
        if name != family:
            grid.add_section()
        family = name
        for row in _rows(measured, before):
            grid.add_row(*row)
    Console(stderr=True, width=180).print(grid)


def _rows(measured: Measured, before: Mapping[str, Mapping[str, Any]] | None) -> Iterable[list[str]]:
    shape = UNITS[measured.figure.unit]
    head = [measured.figure.name, shape.format(measured.median), shape.format(measured.best), f"{measured.spread:.2f}"]
    old = (before or {}).get(measured.figure.name)
    change = f"{measured.median / old['median']:.2f}" if old and old["median"] else ""
    judged = measured.judged or (Judged("", 0.0, 0.0),)
    for place, entry in enumerate(judged):
        cells = head if place == 0 else [""] * len(head)
        compared = []
        if before is not None:
            compared = [", ".join(filter(None, (change if place == 0 else "", _ratio_change(entry, old))))]
        shown = ["", ""] if entry.name in ("", ITSELF) else [f"{entry.value:.3f}", f"{entry.of_bests:.3f}"]
        yield [*cells, entry.name.removeprefix("/ yardstick: ").removeprefix("/ "), *shown, *compared, verdict(entry)]


def _ratio_change(entry: Judged, old: Mapping[str, Any] | None) -> str:
    ratios = {ratio["to"]: ratio["ratio"] for ratio in old["ratios"]} if old else {}
    was = ratios.get(entry.name.removeprefix("/ "))
    return f"{entry.value / was:.2f}" if was and entry.name not in ("", ITSELF) else ""


def verdict(entry: Judged) -> str:
    return "" if entry.met is None else f"{entry.bound} {'met' if entry.met else 'NOT MET'}"


def _short(value: float) -> float:
    return float(f"{value:.5g}")
