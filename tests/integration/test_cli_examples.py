"""Every command ends its help with two examples, and every example works."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mqservice.cli import main
from mqservice.embedded import EmbeddedServer
from tests.commands import ask, environ
from tests.processes import ROOT, Served

ENDLESS = ("top", "tail")
PARSED_ONLY = ("serve", "demo")
"""They open ports of their own; test_process.py and test_cli_serve.py run them."""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command by its words, groups included."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


def examples(command: click.Command) -> list[str]:
    _, _, lines = (command.epilog or "").partition("Examples:\n")
    return [line.strip() for line in lines.splitlines()]


COMMANDS = dict(commands(main))
EXAMPLES = sorted({example for command in COMMANDS.values() for example in examples(command)})


def own_words(example: str) -> list[str]:
    """The arguments of `mqservice` in an example, without what the shell does around it."""
    words = shlex.split(example, comments=True)
    start = words.index("mqservice") + 1
    end = next((n for n, word in enumerate(words) if n > start and word in ("|", ">", "&&")), len(words))
    return words[start:end]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_when_asked_for_then_ends_with_two_examples_of_this_command(name: str) -> None:
    found = examples(COMMANDS[name])
    assert len(found) == 2
    for example in found:
        assert f"mqservice {name}".strip() in example
        assert len(example) <= 110


def test_table_of_commands_when_read_then_their_help_is_in_step() -> None:
    for name, entry in main.entries.items():  # type: ignore[attr-defined]
        assert entry.help[0].isupper(), name
        assert entry.help.endswith("."), name
        assert COMMANDS[name].get_short_help_str(), name


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_when_read_then_its_options_exist(example: str) -> None:
    command: click.Command = main
    args = own_words(example)
    context = click.Context(main, info_name="mqservice")
    while isinstance(command, click.Group):
        rest = command.parse_args(context, args)
        name, found, args = command.resolve_command(context, [*context._protected_args, *context.args] or rest)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.parse_args(context, list(args))


@pytest.fixture
def prepared(served: Served) -> Served:
    """A service with everything that examples speak of, whatever the one before has done."""
    ask(served, "POST", "/v1/queues/emails/resume")
    ask(served, "POST", "/v1/queues/echo/resume")
    for path, body in (
        ("echo/messages?id=order-42&wait=5", 1),
        ("echo/messages?id=order-44&delay=1h", 1),
        ("sleep/messages?id=nap-1", 0.1),
        ("sleep/messages?id=nap-2", 3600),
        ("emails/messages?id=order-13&wait=5", {}),
    ):
        ask(served, "POST", f"/v1/queues/{path}", body)
    for name in ("report", "tick"):
        ask(served, "PUT", f"/v1/schedules/{name}", {"queue": "echo", "every": "1h"})
    return served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with a `mqservice` on the path."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "mqservice"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mqservice "$@"\n')
    program.chmod(0o755)
    for place in (".local/share/bash-completion/completions", ".config/fish/completions"):
        (tmp_path / place).mkdir(parents=True)
    shutil.copy(ROOT / "config.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", [each for each in EXAMPLES if own_words(each)[0] not in PARSED_ONLY])
def test_example_when_run_then_it_works(prepared: Served, url_of_redis: str, home: Path, example: str) -> None:
    line = example.replace("http://127.0.0.1:5000", prepared.url)
    endless = own_words(example)[0] in ENDLESS
    done = subprocess.run(
        ["bash", "-c", f"timeout --preserve-status -s INT 2 {line}" if endless else line],
        cwd=home,
        env=environ(
            HOME=str(home),
            PATH=f"{home}/bin:/usr/bin:/bin",
            MQSERVICE_URL=prepared.url,
            MQSERVICE_REDIS__URL=url_of_redis,
            MQSERVICE_REDIS__EMBEDDED="never",
            MQSERVICE_HTTP__PORT="0",
        ),
        input="y\n",
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode in ((0, 130) if endless else (0,)), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def url_of_redis(server: EmbeddedServer) -> str:
    """Where the service's Redis is."""
    return server.url(5)
