"""What goes to stdout: JSON for machines, tables for people; and to stderr: what happens meanwhile."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_PIPE_COLUMNS: Final = 250
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"))

json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of text for people.")


def print_document(value: Any) -> None:
    """Print one JSON document over several lines."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_line(value: Any) -> None:
    """Print JSON on one line, as NDJSON has it."""
    click.echo(msgspec.json.encode(value))


def say(text: str) -> None:
    """Tell on stderr what happens."""
    click.echo(text, err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence["str | Text"]]) -> None:
    """Print a table on stdout; one row a line when it goes into a pipe or a file."""
    console().print(table(columns, rows))


def table(columns: Sequence[str], rows: Iterable[Sequence["str | Text"]], right: Sequence[str] = ()) -> "Table":
    """Return a table; the columns named in `right` hold numbers."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - rich takes 60 ms, and JSON needs none of it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        # Text, since rich would take [brackets] in a plain string for markup.
        made.add_row(*(Text(cell, overflow="fold") if isinstance(cell, str) else cell for cell in row))
    return made


def console(*, stderr: bool = False) -> "Console":
    """Return a console on stdout or stderr, wide when nobody looks; a reader that has gone raises BrokenPipeError."""
    from rich.console import Console  # noqa: PLC0415

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    return Ours(width=None if stream.isatty() else _PIPE_COLUMNS, highlight=False, stderr=stderr)


def span(seconds: float | None) -> str:
    """Return a time as people say it: 250ms, 4.2s, 7m, 3h, 2d; "" for None."""
    if seconds is None:
        return ""
    for unit_s, letter in _UNITS:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f}{letter}"
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds * 1000:.0f}ms"
