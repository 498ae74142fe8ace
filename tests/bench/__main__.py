"""`make bench`: every figure of the service beside its yardstick, medians of interleaved rounds.

One JSON line a figure on stdout, a table on stderr. Ratios count, not figures: machines drift between runs.
"""

import argparse
import contextlib
import os
import sys
import traceback
from pathlib import Path

import uvloop

from tests.bench import report, running
from tests.bench.families import ALL
from tests.bench.figures import Family, Plan
from tests.bench.lab import server_words, slug
from tests.bench.running import Measured

QUICK = Plan(rounds=3, scale=0.2, quick=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    names = ", ".join(family.name for family in ALL)
    parser.add_argument("--only", metavar="NAME", action="append", help=f"a family, may be repeated: {names}")
    parser.add_argument("--compare", metavar="FILE", type=Path, help="a saved run: print how each figure changed")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the JSON lines there too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the messages of a full run")
    parser.add_argument("--quick", action="store_true", help="little of each, bounds of 2x; exit 1 when one is broken")
    return parser.parse_args()


def chosen(only: list[str] | None, quick: bool) -> list[Family]:
    """Return the wanted families; exit 2 on a name that none has."""
    if only:
        known = {family.name: family for family in ALL}
        if unknown := [name for name in only if slug(name) not in known]:
            sys.exit(f"no family {', '.join(unknown)}; there are: {', '.join(known)}")
        return [known[slug(name)] for name in only]
    return [family for family in ALL if family.in_quick or not quick]


async def measure(
    families: list[Family], plan: Plan, save: Path | None
) -> tuple[list[tuple[str, Measured]], list[str]]:
    """Run all families, telling what is known as it comes; also return those that failed."""
    results: list[tuple[str, Measured]] = []
    failed: list[str] = []
    print(await server_words(), file=sys.stderr, flush=True)
    with contextlib.ExitStack() as exits:
        streams = [sys.stdout, *([exits.enter_context(save.open("w"))] if save else [])]
        for family in families:
            # What others do on the machine: with more than one runnable task beside ours, figures mean little.
            print(f"measuring: {family.name} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
            try:
                measured = await running.run(family, plan)
            except (RuntimeError, OSError) as error:  # TimeoutError is one
                traceback.print_exc()
                print(f"failed: {family.name}: {error!r}", file=sys.stderr, flush=True)
                failed.append(family.name)
                continue
            report.write((report.line(family.name, entry) for entry in measured), *streams)
            results += [(family.name, entry) for entry in measured]
    return results, failed


def main() -> int:
    args = arguments()
    plan = QUICK if args.quick else Plan(args.rounds, args.scale)
    before = report.saved(args.compare) if args.compare else None
    results, failed = uvloop.run(measure(chosen(args.only, args.quick), plan, args.save))
    if results:
        report.table(results, before)
    broken = [(m.figure.name, j) for _, m in results for j in m.judged if j.met is False]
    for name, judged in broken:
        print(f"not met: {name} {judged.name}: {judged.value:.3f}, bound {judged.bound}", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or (broken and args.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
