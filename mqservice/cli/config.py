"""`mqservice config show`, and how every command reads the configuration and prints a table."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mqservice.cli.problems import UsageProblem
from mqservice.config import Loaded, load
from mqservice.errors import ConfigError

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The file to read; default MQSERVICE_CONFIG, then ./config.toml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
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


def load_or_exit(path: Path | None, flags: Mapping[str, tuple[str, object]] | None = None) -> Loaded:
    """Read the configuration for a command; a ConfigError ends it with exit code 2."""
    try:
        return load(path, flags=flags)
    except ConfigError as error:
        raise UsageProblem(str(error)) from error


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table on stdout; one row a line when it goes into a pipe or a file."""
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        # Text, since rich would take [brackets] in a plain string for markup.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell, overflow="fold") for cell in row))
    Console(width=None if sys.stdout.isatty() else 250, highlight=False).print(table)
