"""`mqservice completion`."""

from typing import Literal

import click
from click.shell_completion import get_completion_class

from mqservice.cli.examples import examples
from mqservice.cli.problems import Failed

_PROGRAM = "mqservice"


@click.command(
    epilog=examples(
        "mqservice completion bash > ~/.local/share/bash-completion/completions/mqservice",
        "mqservice completion fish > ~/.config/fish/completions/mqservice.fish",
    )
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the script that completes commands, options and the names of queues.

    For zsh, write it to a file `_mqservice` in a directory of $fpath.
    """
    made = get_completion_class(shell)
    if made is None:
        raise Failed(f"no completion for {shell}")
    click.echo(made(ctx.find_root().command, {}, _PROGRAM, f"_{_PROGRAM}_COMPLETE".upper()).source())
