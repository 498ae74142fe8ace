"""The command line: parse, call one action, render. Data goes to stdout, everything else to stderr."""

import click

from mqservice import __version__
from mqservice.cli.check import check
from mqservice.cli.config import config
from mqservice.cli.kitchen import kitchen
from mqservice.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """The message queue you can curl: HTTP in, Python handlers out, over Redis or Valkey."""


for _command in (serve, check, config, kitchen):
    main.add_command(_command)
