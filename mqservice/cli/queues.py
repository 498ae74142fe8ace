"""`mqservice queues`: list, pause, resume, purge."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from mqservice.cli.api import queue_argument, with_api
from mqservice.cli.examples import examples
from mqservice.cli.group import ListingGroup
from mqservice.cli.output import console, json_option, print_document, say, span, table
from mqservice.cli.problems import Failed
from mqservice.client import Client, path_of

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_PURGEABLE: Final = ("ready", "scheduled", "dead", "done", "cancelled")
_COUNTS: Final = ("ready", "active", "scheduled", "dead", "done")
_NUMBERS: Final = (*_COUNTS, "in/s", "done/s", "oldest", "consumers")
_STYLES: Final = {"paused": "yellow", "no consumers": "bold red"}
_PURGE_S: Final = 300.0
"""A purge deletes some 100,000 messages a second, in one request."""


@click.group(cls=ListingGroup, epilog=examples("mqservice queues", "mqservice queues pause emails"))
def queues() -> None:
    """List the queues, which is what happens without a command; pause, resume and purge them."""


@queues.command("list", epilog=examples("mqservice queues list", "mqservice queues list --json"))
@json_option
@with_api
def list_(api: Client, as_json: bool) -> None:
    """List the queues: state, messages per state, rates of the last 10 s, age of the oldest, consumers."""
    document = api.call("GET", path_of("v1", "queues")).json
    print_document(document) if as_json else console().print(queues_table(document["queues"]))


@queues.command(epilog=examples("mqservice queues pause emails", "mqservice queues pause echo --json"))
@queue_argument
@json_option
@with_api
def pause(api: Client, queue: str, as_json: bool) -> None:
    """Hand out no message of the queue, in any process, until it is resumed."""
    _switch(api, queue, "pause", as_json=as_json)


@queues.command(epilog=examples("mqservice queues resume emails", "mqservice queues resume echo --json"))
@queue_argument
@json_option
@with_api
def resume(api: Client, queue: str, as_json: bool) -> None:
    """Hand out messages again."""
    _switch(api, queue, "resume", as_json=as_json)


@queues.command(
    epilog=examples("mqservice queues purge emails --state dead", "mqservice queues purge echo --state done --yes")
)
@queue_argument
@click.option("--state", type=click.Choice(_PURGEABLE), required=True, help="Messages in this state are deleted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_api
def purge(api: Client, queue: str, state: str, yes: bool, as_json: bool) -> None:
    """Delete all messages of a queue that are in one state now, for good. Asks before it does."""
    counts = api.call("GET", path_of("v1", "queues", queue)).json["counts"]
    if not yes and not _agreed(f"Delete {counts[state]:,} {state} messages of {queue} for good?"):
        raise Failed("nothing was deleted; --yes does not ask")
    path = path_of("v1", "queues", queue, "messages")
    answer = api.call("DELETE", path, {"state": state}, timeout_s=_PURGE_S).json
    print_document(answer) if as_json else click.echo(answer["deleted"])


def queues_table(views: Iterable[dict[str, Any]]) -> "Table":
    """Return the queues as a table; `views` as GET /v1/queues has them."""
    return table(("queue", "state", *_NUMBERS), [_row(view) for view in views], right=_NUMBERS)


def queue_state(view: dict[str, Any]) -> str:
    """Say in a word how a queue is."""
    return "paused" if view["paused"] else "running" if view["consumers"] else "no consumers"


def _row(view: dict[str, Any]) -> list["str | Text"]:
    from rich.text import Text  # noqa: PLC0415

    state, rates = queue_state(view), view["rates"]
    return [
        view["name"],
        Text(state, _STYLES.get(state, "")),
        *(f"{view['counts'][name]:,}" for name in _COUNTS),
        f"{rates['in_per_s']:.1f}",
        f"{rates['done_per_s']:.1f}",
        span(view["oldest_s"]),
        str(view["consumers"]),
    ]


def _switch(api: Client, queue: str, verb: str, *, as_json: bool) -> None:
    answer = api.call("POST", path_of("v1", "queues", queue, verb)).json
    print_document(answer) if as_json else click.echo("paused" if answer["paused"] else "running")


def _agreed(question: str) -> bool:
    """Ask on stderr. Not click.confirm, which takes Ctrl-C and the end of stdin for the same."""
    click.echo(f"{question} [y/N] ", err=True, nl=False)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        say("")
    return answer.strip().lower() in ("y", "yes")
