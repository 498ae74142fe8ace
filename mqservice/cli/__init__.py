"""The command line: parse, call one action, render. Data goes to stdout, everything else to stderr."""

import click

from mqservice.cli.examples import examples
from mqservice.cli.group import Entry, LazyGroup

_RUN, _SEND, _OPERATE, _SHELL = "Run", "Send and follow", "Look and operate", "Shell"

_ENTRIES = {
    "serve": Entry("serve", _RUN, "Take messages over HTTP and run their handlers."),
    "check": Entry("check", _RUN, "Check the configuration, Redis, the port and who may use it."),
    "config": Entry("config", _RUN, "Show the configuration; print files to deploy with."),
    "token": Entry("token", _RUN, "Make a token: lines for config.toml, and its secret."),
    "kitchen": Entry("kitchen", _RUN, "Cook and eat around a bounded queue, as in the tutorial."),
    "demo": Entry("demo", _RUN, "Run the service under a mixed load, to look at."),
    "send": Entry("send", _SEND, "Send one message, or many from a pipe."),
    "result": Entry("messages", _SEND, "Print the result of a message."),
    "get": Entry("messages", _SEND, "Show a message, or those in one state."),
    "cancel": Entry("messages", _SEND, "Cancel a message."),
    "replay": Entry("messages", _SEND, "Make dead messages ready again."),
    "publish": Entry("channels", _SEND, "Publish a message to a channel."),
    "tail": Entry("channels", _SEND, "Follow a channel."),
    "queues": Entry("queues", _OPERATE, "List queues; pause, resume, purge them."),
    "schedules": Entry("schedules", _OPERATE, "List, put and delete schedules."),
    "top": Entry("top", _OPERATE, "Watch the queues, live."),
    "bench": Entry("bench", _OPERATE, "Measure a running service."),
    "health": Entry("health", _OPERATE, "Ask whether the service lives or is ready."),
    "completion": Entry("completion", _SHELL, "Print the completion script of a shell."),
}


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from mqservice import __version__  # noqa: PLC0415 - reading metadata takes 20 ms

        click.echo(__version__)
        ctx.exit()


@click.group(
    cls=LazyGroup,
    entries=_ENTRIES,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("mqservice serve", """mqservice send echo '{"a": 1}' --wait 5s"""),
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def main() -> None:
    """The message queue you can curl: HTTP in, Python handlers out, over Redis or Valkey.

    Commands that speak to a running service find it at MQSERVICE_URL, with MQSERVICE_TOKEN. Exit codes: 0 done,
    1 failed, 2 usage, 3 unreachable, 4 not found, 5 timed out.
    """
