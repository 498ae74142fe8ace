"""`mqservice health`: for the health checks of containers, whose images have no curl."""

import click

from mqservice.cli.api import with_api
from mqservice.cli.examples import examples
from mqservice.cli.output import json_option, print_document
from mqservice.client import Client


@click.command(epilog=examples("mqservice health", "mqservice health --ready --url http://127.0.0.1:5000"))
@click.option("--ready", is_flag=True, help="Does it take messages?  [default: does it live?]")
@json_option
@with_api
def health(api: Client, ready: bool, as_json: bool) -> None:
    """Ask /livez, or /readyz. Exit code 3: nobody answers, or the service starts or drains."""
    text = api.call("GET", "/readyz" if ready else "/livez", timeout_s=3).body.decode(errors="replace").strip()
    print_document({"state": text}) if as_json else click.echo(text)
