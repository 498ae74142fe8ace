"""`mqservice result`, `get`, `cancel` and `replay`: what became of messages, and what shall become of them."""

import time
from collections.abc import Iterator
from typing import Any, Final

import click

from mqservice.cli.api import DURATION, queue_argument, with_api
from mqservice.cli.examples import examples
from mqservice.cli.output import json_option, print_document, print_line, print_table
from mqservice.cli.problems import Failed, TimedOut
from mqservice.client import Client, path_of

ENDED: Final = ("done", "dead", "cancelled")
STATES: Final = ("ready", "scheduled", "active", "done", "dead", "cancelled")
REASONS: Final = ("failed", "rejected", "crashed", "expired", "undecodable", "no_handler")
_LONG_POLL_S: Final = 60.0
_PAGE: Final = 200
_BODY_CHARS: Final = 60


@click.command(epilog=examples("mqservice result echo order-42", "mqservice result sleep nap-1 --wait 30s --json"))
@queue_argument
@click.argument("message_id", metavar="ID")
@click.option("--wait", "wait_s", type=DURATION, default=0.0, help="Wait so long for the message to end.")
@json_option
@with_api
def result(api: Client, queue: str, message_id: str, wait_s: float, as_json: bool) -> None:
    """Print what the handler returned, as JSON. With --json: the whole message.

    Exit code 1: the message is dead or cancelled; 4: there is none with this ID; 5: it has not ended yet.
    """
    print_result(await_end(api, queue, message_id, wait_s), as_json=as_json)


@click.command(epilog=examples("mqservice get echo order-42", "mqservice get emails --state dead --limit 10 --json"))
@queue_argument
@click.argument("message_id", metavar="[ID]", required=False)
@click.option("--state", type=click.Choice(STATES), help="Without ID: which messages.  [default: ready]")
@click.option("--limit", type=click.IntRange(1, 100_000), help="Without ID: how many at most.  [default: 50]")
@json_option
@with_api
def get(api: Client, queue: str, message_id: str | None, state: str | None, limit: int | None, as_json: bool) -> None:
    """Show a message: state, body, result or error, attempts, times. Without ID: those in one state, taking none."""
    if message_id is None:
        _print_messages(messages(api, queue, state or "ready", limit or 50), as_json=as_json)
    elif state or limit:
        raise click.UsageError("--state and --limit are for a list, without ID")
    else:
        _print_message(api.call("GET", _path(queue, message_id)).json, as_json=as_json)


@click.command(epilog=examples("mqservice cancel sleep nap-2", "mqservice cancel echo order-44 --json"))
@queue_argument
@click.argument("message_id", metavar="ID")
@json_option
@with_api
def cancel(api: Client, queue: str, message_id: str, as_json: bool) -> None:
    """Cancel a message: ready or scheduled at once, active by cancelling its coroutine, wherever it runs."""
    answer = api.call("DELETE", _path(queue, message_id)).json
    print_document(answer) if as_json else click.echo(answer["state"])


@click.command(
    epilog=examples("mqservice replay emails order-13", "mqservice replay emails --all --reason failed --rate 10")
)
@queue_argument
@click.argument("message_id", metavar="[ID]", required=False)
@click.option("--all", "replay_all", is_flag=True, help="All dead messages of the queue, or those chosen by:")
@click.option("--reason", type=click.Choice(REASONS), help="What they died of.")
@click.option("--since", metavar="TIME", help="Died then or later, such as 2030-01-31T08:00:00Z.")
@click.option("--until", metavar="TIME", help="Died then or before.")
@click.option("--limit", type=click.IntRange(1, 100_000), help="So many at most, the oldest first.  [default: 1000]")
@click.option("--rate", type=click.FloatRange(0, 1_000_000), help="So many a second.  [default: all at once]")
@json_option
@with_api
def replay(
    api: Client, queue: str, message_id: str | None, replay_all: bool, as_json: bool, **chosen: str | float | None
) -> None:
    """Make one dead message ready again, or all of a queue, with new attempts and their history."""
    if (message_id is None) != replay_all or (message_id and any(value is not None for value in chosen.values())):
        raise click.UsageError("say either the ID of one message, or --all with what chooses among them")
    if message_id is None:
        answer = api.call("POST", path_of("v1", "queues", queue, "replay"), chosen, timeout_s=120).json
    else:
        answer = api.call("POST", f"{_path(queue, message_id)}/replay").json
    print_document(answer) if as_json else click.echo(answer["state"] if message_id else answer["replayed"])


def await_end(api: Client, queue: str, message_id: str, wait_s: float) -> dict[str, Any]:
    """Return a message once it has ended, else as it is after `wait_s`."""
    give_up_at = time.monotonic() + wait_s
    while True:
        left_s = max(0.0, min(give_up_at - time.monotonic(), _LONG_POLL_S))
        answer = api.call("GET", _path(queue, message_id), {"wait": f"{left_s:.3f}"}, timeout_s=left_s + 10)
        view: dict[str, Any] = answer.json
        if view["state"] in ENDED or not left_s:
            return view


def print_result(view: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of a message that is done. Raises Failed, TimedOut."""
    if as_json:
        print_document(view)
    match view["state"]:
        case "done":
            if not as_json:
                print_line(view.get("result"))
        case "dead" | "cancelled":
            raise Failed(fate(view))
        case state:
            raise TimedOut(f"message {view['id']} of {view['queue']} is still {state}")


def fate(view: dict[str, Any]) -> str:
    """Say in a line what a message died of."""
    reason = f" ({view['reason']})" if view.get("reason") else ""
    error = view.get("error")
    text = f": {error['type']}: {error['text']}" if error else ""
    return " ".join(f"message {view['id']} of {view['queue']} is {view['state']}{reason}{text}".split())


def messages(api: Client, queue: str, state: str, limit: int) -> Iterator[dict[str, Any]]:
    """Yield messages in one state, page by page."""
    cursor = None
    while limit > 0:
        query = {"state": state, "limit": min(limit, _PAGE), "cursor": cursor}
        page = api.call("GET", path_of("v1", "queues", queue, "messages"), query).json
        yield from page["messages"]
        limit -= _PAGE
        cursor = page["cursor"]
        if cursor is None:
            return


def _print_messages(views: Iterator[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for view in views:
            print_line(view)
        return
    columns = ("id", "state", "attempts", "sent", "reason", "body")
    rows = (
        (v["id"], v["state"], str(v.get("attempts_used", 0)), v["sent_at"], v.get("reason", ""), _shortened(v["body"]))
        for v in views
    )
    print_table(columns, rows)


def _print_message(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_document(view)
        return
    rows = [(name, value if isinstance(value, str) else _json(value)) for name, value in view.items()]
    print_table(("field", "value"), rows)


def _shortened(body: object) -> str:
    text = body if isinstance(body, str) else _json(body)
    text = " ".join(text.split())
    return text if len(text) <= _BODY_CHARS else text[: _BODY_CHARS - 1] + "…"


def _json(value: object) -> str:
    import msgspec  # noqa: PLC0415

    return msgspec.json.encode(value).decode()


def _path(queue: str, message_id: str) -> str:
    return path_of("v1", "queues", queue, "messages", message_id)
