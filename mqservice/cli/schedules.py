"""`mqservice schedules`: list, put, delete."""

from typing import Any, Final

import click
import msgspec

from mqservice.cli.api import complete_queue, complete_schedule, with_api
from mqservice.cli.body import JSON_TYPE, read_body
from mqservice.cli.examples import examples
from mqservice.cli.group import ListingGroup
from mqservice.cli.output import json_option, print_document, print_table, say
from mqservice.client import Client, path_of

_NAME: Final = click.argument("name", shell_complete=complete_schedule)


@click.group(cls=ListingGroup, epilog=examples("mqservice schedules", "mqservice schedules delete report"))
def schedules() -> None:
    """List the schedules, which is what happens without a command; put and delete them."""


@schedules.command("list", epilog=examples("mqservice schedules list", "mqservice schedules list --json"))
@json_option
@with_api
def list_(api: Client, as_json: bool) -> None:
    """List the schedules and when they are due next."""
    document = api.call("GET", path_of("v1", "schedules")).json
    if as_json:
        print_document(document)
    else:
        columns = ("schedule", "queue", "when", "state", "last", "next", "from")
        print_table(columns, [_row(view) for view in document["schedules"]])


@schedules.command(
    epilog=examples(
        """mqservice schedules put report --queue emails --cron '30 7 * * MON-FRI' --tz Asia/Tokyo '{"to": "a@b"}'""",
        "mqservice schedules put tick --queue echo --every 30s",
    )
)
@_NAME
@click.argument("body", required=False)
@click.option("--queue", required=True, shell_complete=complete_queue, help="Where each message goes.")
@click.option("--cron", help="Five fields as in crontab, or six with seconds in front.")
@click.option("--every", help="Seconds, or such as 30s, 5m, 1h, 1d.")
@click.option("--tz", help="IANA time zone of the cron expression.  [default: UTC]")
@click.option(
    "--misfire",
    type=click.Choice(("skip", "coalesce", "catch_up")),
    help="Due times missed by all processes.  [default: coalesce]",
)
@click.option(
    "--overlap", type=click.Choice(("allow", "skip")), help="While the message before has not ended.  [default: allow]"
)
@click.option("--paused", is_flag=True, help="Nothing is due until it is put again without.")
@json_option
@with_api
def put(api: Client, name: str, body: str | None, paused: bool, as_json: bool, **said: str | None) -> None:
    """Make a schedule, or replace the one of this name. BODY is as in `send`; without one it is null."""
    if (said["cron"] is None) == (said["every"] is None):
        raise click.UsageError("say either --cron or --every")
    schedule = {key: value for key, value in said.items() if value is not None}
    content = msgspec.json.encode({**schedule, "paused": paused, "body": _value(body)})
    view = api.call("PUT", path_of("v1", "schedules", name), body=content, headers={"Content-Type": JSON_TYPE}).json
    if as_json:
        print_document(view)
    else:
        click.echo(view["next"][0] if view["next"] else "never" if not paused else "paused")


@schedules.command(epilog=examples("mqservice schedules delete tick", "mqservice schedules delete report --json"))
@_NAME
@json_option
@with_api
def delete(api: Client, name: str, as_json: bool) -> None:
    """Delete a schedule. Messages that it has sent stay."""
    api.call("DELETE", path_of("v1", "schedules", name))
    if as_json:
        print_document({"name": name, "deleted": True})
    else:
        say(f"deleted {name}")


def _value(argument: str | None) -> Any:
    """Return the JSON value that a body argument means: text that is not JSON is a string."""
    if argument is None:
        return None
    body = read_body(argument)
    if body.type == JSON_TYPE:
        return msgspec.Raw(body.content)
    try:
        return body.content.decode()
    except UnicodeDecodeError:
        raise click.UsageError("the body of a schedule is JSON or text") from None


def _row(view: dict[str, Any]) -> list[str]:
    when = view["cron"] or f"every {view['every']:g}s"
    if view["tz"] != "UTC":
        when = f"{when} {view['tz']}"
    state = "paused" if view["paused"] else "running"
    upcoming = view["next"][0] if view["next"] else ""
    return [view["name"], view["queue"], when, state, view["last_at"] or "", upcoming, view["source"]]
