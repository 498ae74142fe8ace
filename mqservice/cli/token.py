"""`mqservice token`."""

import hashlib
import json
import secrets

import click

from mqservice.cli.examples import examples
from mqservice.cli.output import json_option, print_document, say
from mqservice.cli.problems import UsageProblem
from mqservice.errors import InvalidName
from mqservice.keys import valid_name

_SCOPES = ("send", "read", "work", "admin")


@click.command(
    epilog=examples("mqservice token ops > tokens.toml", "mqservice token shop --scope send --queue emails --json")
)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(_SCOPES),
    multiple=True,
    help="What it may do; repeat for more. send: send and publish; read: look; work: cancel and replay a message; "
    "admin: whole queues and schedules.  [default: all four]",
)
@click.option("--queue", "queues", multiple=True, help="Only this queue; repeat for more.  [default: everything]")
@json_option
def token(name: str, scopes: tuple[str, ...], queues: tuple[str, ...], as_json: bool) -> None:
    """Make a token: its lines for config.toml on stdout, its secret on stderr.

    They belong into config.toml, or into the file that auth.token_file names. The secret is shown this once and kept
    nowhere: the service knows its hash alone.
    """
    try:
        valid_name(name, "token")
        for queue in queues:
            valid_name(queue)
    except InvalidName as error:
        raise UsageProblem(str(error)) from error
    secret = f"mq_{secrets.token_urlsafe(32)}"
    made = {
        "name": name,
        "sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "scopes": [scope for scope in _SCOPES if scope in (scopes or _SCOPES)],
        **({"queues": list(queues)} if queues else {}),
    }
    if as_json:
        print_document({**made, "secret": secret})
        return
    # What JSON says of strings and lists of names is TOML too.
    click.echo("\n[[auth.tokens]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in made.items()))
    say(f"secret, shown this once: {secret}\nuse it:  export MQSERVICE_TOKEN={secret}")
