"""The group of all commands: imports only the one that is called, and ends as a Unix tool does."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from mqservice.cli.problems import of_api
from mqservice.client import ApiProblem, BadUrl, NoAnswer

_INTERRUPTED: Final = 128 + 2
_BROKEN_PIPE: Final = 128 + 13
"""What a shell shows for a tool that ended by SIGPIPE."""


class Entry(NamedTuple):
    """A command: where it is, and its line in the list of commands."""

    module: str
    heading: str
    help: str


class LazyGroup(click.Group):
    """Commands by name, each `mqservice.cli.<module>.<name>`.

    The list of commands and its completion come from the table, since importing all of them takes four times as long
    as the command that is wanted.
    """

    def __init__(self, *args: Any, entries: dict[str, Entry], **options: Any) -> None:
        super().__init__(*args, **options)
        self.entries: Final = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(f"mqservice.cli.{entry.module}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists of commands, one under each heading."""
        headings = dict.fromkeys(entry.heading for entry in self.entries.values())
        for heading in headings:
            with formatter.section(heading):
                formatter.write_dl([(n, e.help) for n, e in self.entries.items() if e.heading == heading])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands from the table, and options."""
        items = [CompletionItem(n, help=e.help) for n, e in self.entries.items() if n.startswith(incomplete)]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command: errors of the API and signals of a terminal become exit codes."""
        return ended_well(lambda: super(LazyGroup, self).invoke(ctx))


class ListingGroup(click.Group):
    """A group whose command `list` is meant when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` where it was left out."""
        is_option = bool(args) and args[0].startswith("-") and args[0] not in ctx.help_option_names
        if not ctx.resilient_parsing and (not args or is_option):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def ended_well(run: Callable[[], Any]) -> Any:
    """Run, and flush what was printed. A reader that has gone and Ctrl-C end the process quietly, with 141 and 130."""
    try:
        result = run()
        sys.stdout.flush()
    except (BadUrl, NoAnswer, ApiProblem) as error:
        raise of_api(error) from error
    except KeyboardInterrupt:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # Or the interpreter would try once more to flush, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)
    return result
