"""`mqservice send`: one message, one many times, or a stream of them from a pipe."""

from typing import Any

import click

from mqservice.cli.api import DURATION, queue_argument, with_api
from mqservice.cli.body import Body, read_body, stdin_is_terminal
from mqservice.cli.examples import examples
from mqservice.cli.messages import ENDED, await_end, print_result
from mqservice.cli.output import json_option, print_document
from mqservice.cli.problems import UsageProblem
from mqservice.cli.stream import copies, item_of, items_from_stdin, send_stream
from mqservice.client import Client, path_of

_MOST_COPIES = 10_000_000


@click.command(
    epilog=examples(
        """mqservice send echo '{"a": 1}' --wait 5s""",
        "seq 1 2500 | mqservice send echo --delay 2s --json | head -n 1",
    )
)
@queue_argument
@click.argument("body", required=False)
@click.option("--count", type=click.IntRange(1, _MOST_COPIES), default=1, help="Send it so many times, in batches.")
@click.option("--wait", type=DURATION, help="Wait so long for the message to end, and print its result.")
@click.option("--delay", type=DURATION, help="Not before so long from now.")
@click.option("--at", metavar="MOMENT", help="Not before then, such as 2030-01-31T08:00:00Z.")
@click.option("--ttl", type=DURATION, help="Dead unless it was started by then.")
@click.option("--attempts", type=click.IntRange(1, 1000), help="Runs until it is dead.")
@click.option("--retry", type=DURATION, help="Wait after the first failed run; doubles with each.")
@click.option("--id", "message_id", metavar="ID", help="Your own id: sending it again is the same message.")
@click.option("--unique", metavar="KEY", help="ApiProblem while another message with this key is unfinished.")
@click.option(
    "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="A header of the request, as curl -H."
)
@click.option("--items", is_flag=True, help="""Each line is {"body": …} with its own id, delay, ttl or attempts.""")
@click.option(
    "--patience",
    type=DURATION,
    default=60.0,
    help="How long batches of a stream that are refused (queue full, Redis away) are tried again.  [default: 60s]",
)
@json_option
@with_api
def send(
    api: Client,
    queue: str,
    body: str | None,
    count: int,
    wait: float | None,
    headers: tuple[str, ...],
    items: bool,
    patience: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Send a message. BODY is JSON, or else text; `-` is stdin, `@file` a file, `@@` begins a text with @.

    Without BODY each line of stdin is a message of its own, a JSON document (NDJSON); they are sent in batches while
    they come in. Prints ids; many are printed only with --json or into a pipe or a file. With --wait the result is
    printed; exit code 1: the message is dead, 5: it has not ended by then.
    """
    if body is not None and not items and count == 1:
        _send_one(api, queue, read_body(body), wait, _headers(headers), options, as_json=as_json)
        return
    _refuse_for_many(wait=wait, header=headers or None, **options)
    extra = {name: value for name, value in options.items() if value is not None}
    if body is None:
        if count > 1 or stdin_is_terminal():
            raise click.UsageError("BODY is missing; or send lines: seq 10 | mqservice send QUEUE")
        if items and extra:
            raise click.UsageError(f"with --items each line says --{next(iter(extra))} itself")
        source = items_from_stdin(extra, as_they_are=items)
    elif items:
        raise click.UsageError("--items is for lines from a pipe, without BODY")
    else:
        source = copies(item_of(read_body(body), extra), count)
    send_stream(api, queue, source, patience, as_json=as_json)


def _send_one(
    api: Client,
    queue: str,
    body: Body,
    wait_s: float | None,
    headers: dict[str, str],
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    query = {"id": options.pop("message_id"), **options, "wait": wait_s and min(wait_s, 60.0)}
    path = path_of("v1", "queues", queue, "messages")
    sent_headers = {"Content-Type": body.type, **headers}
    answer = api.call("POST", path, query, body.content, sent_headers, timeout_s=10 + (query["wait"] or 0.0))
    view = answer.json
    if wait_s is None:
        print_document(view) if as_json else click.echo(view["id"] or "")
    elif view["id"] is None:
        raise UsageProblem(f"queue {queue} is at-most-once: there is no result to wait for")
    elif answer.status == 200 and view["state"] in ENDED:
        print_result(view, as_json=as_json)
    else:
        print_result(await_end(api, queue, view["id"], max(0.0, wait_s - query["wait"])), as_json=as_json)


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for line in given:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{line!r}: expected 'NAME: VALUE'", param_hint="'--header'")
        if not line.isprintable() or not line.isascii():
            raise click.BadParameter(f"{line!r}: only printable ASCII can be sent", param_hint="'--header'")
        headers[name.strip()] = value.strip()
    return headers


def _refuse_for_many(**given: object) -> None:
    for name in ("wait", "header", "message_id", "unique", "at", "retry"):
        if given[name] is not None:
            raise click.UsageError(f"--{name.removeprefix('message_')} is for one message; many go in batches")
