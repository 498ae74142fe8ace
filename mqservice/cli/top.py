"""`mqservice top`."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from mqservice.cli.api import with_api
from mqservice.cli.channels import decoded, follow
from mqservice.cli.examples import examples
from mqservice.cli.output import console, json_option, print_line, span
from mqservice.cli.queues import queues_table
from mqservice.client import ApiProblem, Client, path_of

if TYPE_CHECKING:
    from rich.console import Group

_EVERY_S: Final = 1.0


@click.command(epilog=examples("mqservice top", "mqservice top --count 2 --json"))
@click.option("--count", type=click.IntRange(1), help="End after so many looks.  [default: at Ctrl-C]")
@json_option
@with_api
def top(api: Client, count: int | None, as_json: bool) -> None:
    """Watch the queues in the terminal, once a second; with --json a line for each look."""
    looks = _bounded(_looks(api), count)
    if as_json:
        for look in looks:
            print_line(look)
        return
    from rich.live import Live  # noqa: PLC0415

    # The second screen, as in the classic top: what was on the terminal before comes back.
    screen = console()
    last: dict[str, Any] = {"queues": []}
    try:
        with Live(console=screen, auto_refresh=False, screen=screen.is_terminal) as live:
            for look in looks:
                last = {**last, "outage": None, **look}
                live.update(_screen(last), refresh=True)
    finally:
        if screen.is_terminal:
            screen.print(_screen(last))


def _looks(api: Client) -> Iterator[dict[str, Any]]:
    """Yield the live numbers, from the stream, or from the list of queues where a service has no such stream.

    While Redis is away: `{"outage": …}`.
    """
    try:
        for event in follow(api, path_of("v1", "events")):
            if event.name == "numbers":
                yield decoded(event)
            elif event.name == "outage":
                yield {"outage": decoded(event)}
    except ApiProblem as error:
        if error.status != 404:
            raise
    while True:
        yield api.call("GET", path_of("v1", "queues")).json
        time.sleep(_EVERY_S)


def _bounded(looks: Iterator[dict[str, Any]], count: int | None) -> Iterator[dict[str, Any]]:
    for number, look in enumerate(looks, 1):
        yield look
        if number == count:
            return


def _screen(look: dict[str, Any]) -> "Group":
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    views = look["queues"]
    total = {state: sum(view["counts"][state] for view in views) for state in ("ready", "active", "scheduled", "dead")}
    rates = {name: sum(view["rates"][name] for view in views) for name in ("in_per_s", "done_per_s", "failed_per_s")}
    head = Text.assemble(
        (time.strftime("%H:%M:%S"), "bold"),
        f"  in {rates['in_per_s']:,.1f}/s  done {rates['done_per_s']:,.1f}/s  failed {rates['failed_per_s']:,.1f}/s   ",
        "  ".join(f"{state} {number:,}" for state, number in total.items()),
    )
    if look.get("outage"):
        outage = look["outage"]
        head.append(f"\nRedis is away for {span(outage['away_s'])}: {outage['error']}", "bold red")
    return Group(head, queues_table(views))
