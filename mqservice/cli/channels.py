"""`mqservice publish` and `tail`."""

import random
import time
from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from mqservice.cli.api import with_api
from mqservice.cli.body import read_body
from mqservice.cli.examples import examples
from mqservice.cli.output import json_option, print_document, print_line, say
from mqservice.client import ApiProblem, Client, Event, NoAnswer, path_of

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
_SILENCE_S: Final = 60.0
"""The service lets its streams hear something every 15 s."""


@click.command(epilog=examples("mqservice publish prices.eur 1.07", """mqservice publish news '{"title": "rain"}'"""))
@click.argument("channel")
@click.argument("body")
@json_option
@with_api
def publish(api: Client, channel: str, body: str, as_json: bool) -> None:
    """Publish a message to all who listen now. BODY is as in `send`. Prints how many connections got it."""
    content = read_body(body)
    path = path_of("v1", "channels", channel, "messages")
    answer = api.call("POST", path, body=content.content, headers={"Content-Type": content.type}).json
    print_document(answer) if as_json else click.echo(answer["receivers"])


@click.command(epilog=examples("mqservice tail news", "mqservice tail 'prices.*' --limit 10 --json"))
@click.argument("channel")
@click.option("--limit", type=click.IntRange(1), help="End after so many messages.  [default: at Ctrl-C]")
@click.option("--after", metavar="EVENT", default="", help="Begin with what came after the event of this id.")
@json_option
@with_api
def tail(api: Client, channel: str, limit: int | None, after: str, as_json: bool) -> None:
    """Follow a channel, a line for each message, or a pattern such as 'prices.*'; with --json NDJSON.

    A lost connection is made again. Where the channel keeps a history, nothing is missed meanwhile, or stderr tells
    how much; elsewhere what was published meanwhile is gone.
    """
    shown = 0
    for event in follow(api, path_of("v1", "channels", channel, "events"), after):
        _print_event(event, named="*" in channel, as_json=as_json)
        shown += event.name == "message"
        if limit is not None and shown >= limit:
            return


def follow(api: Client, path: str, last_id: str = "") -> Iterator[Event]:
    """Yield the events of a stream for ever, over lost connections. Raises ApiProblem, and NoAnswer at first."""
    wait_s, connected, lost = _FIRST_WAIT_S, False, False
    while True:
        try:
            events = api.events(path, last_id=last_id, silence_s=_SILENCE_S)
            if lost:
                say("connected again")
            wait_s, connected, lost = _FIRST_WAIT_S, True, False
            for event in events:
                last_id = event.id or last_id
                yield event
        except (NoAnswer, ApiProblem) as error:
            if not connected or (isinstance(error, ApiProblem) and error.status not in (429, 502, 503, 504)):
                raise
        if not lost:
            say("connection lost, trying again")
        lost = True
        time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - that many do not come back at once
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


def decoded(event: Event) -> dict[str, Any]:
    """Return the data of an event. Raises NoAnswer when they are no JSON object: then something else answers there."""
    try:
        return msgspec.json.decode(event.data, type=dict[str, Any])
    except msgspec.DecodeError:
        raise NoAnswer("what answers there does not speak this API") from None


def _print_event(event: Event, *, named: bool, as_json: bool) -> None:
    data = decoded(event)
    if as_json:
        print_line({"id": event.id, "event": event.name, **data})
    elif event.name == "message":
        body = msgspec.json.encode(data.get("body")).decode()
        click.echo(f"{data.get('channel')} {body}" if named else body)
    elif event.name == "gap":
        missed = data.get("missed")
        how_many = "some messages may have been" if missed is None else f"{missed:,} messages were"
        say(f"gap: {how_many} published meanwhile, and are not kept any more")
