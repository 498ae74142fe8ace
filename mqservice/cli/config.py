"""`mqservice config`: what is configured, and files to deploy with; how every command reads the configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqservice import deploy
from mqservice.cli.examples import examples
from mqservice.cli.output import json_option, print_document, print_table
from mqservice.cli.problems import UsageProblem
from mqservice.errors import ConfigError

if TYPE_CHECKING:
    from mqservice.config import Loaded

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The file to read; default MQSERVICE_CONFIG, then ./config.toml.",
)


@click.group(epilog=examples("mqservice config show", "mqservice config compose > compose.yaml"))
def config() -> None:
    """Look at the configuration; print files to deploy with, as they fit the defaults."""


@config.command(epilog=examples("mqservice config show", "mqservice config show --json --config config.toml"))
@config_option
@json_option
def show(path: Path | None, as_json: bool) -> None:
    """Print each value and where it came from; passwords are hidden."""
    loaded = load_or_exit(path)
    if as_json:
        values = {key: {"value": value, "from": origin} for key, value, origin in loaded.rows()}
        click.echo(json.dumps({"path": loaded.path and str(loaded.path), "values": values}, indent=2))
    else:
        rows = ((key, json.dumps(value, ensure_ascii=False), origin) for key, value, origin in loaded.rows())
        print_table(("key", "value", "from"), rows)


def load_or_exit(path: Path | None, flags: Mapping[str, tuple[str, object]] | None = None) -> "Loaded":
    """Read the configuration for a command; a ConfigError ends it with exit code 2."""
    from mqservice.config import load  # noqa: PLC0415 - the texts to deploy with need none of it

    try:
        return load(path, flags=flags)
    except ConfigError as error:
        raise UsageProblem(str(error)) from error


def _command(name: str, text: deploy.Text) -> click.Command:
    @click.command(
        name,
        help=text.help,
        epilog=examples(f"mqservice config {name} > {text.file}", f"mqservice config {name} --json"),
    )
    @json_option
    def print_text(as_json: bool) -> None:
        content = deploy.read(text)
        print_document({"file": text.file, "text": content}) if as_json else click.echo(content, nl=False)

    return print_text


for _name, _text in deploy.TEXTS.items():
    config.add_command(_command(_name, _text))
