"""The README: what it shows works, word for word; and its Chinese edition shows the same."""

import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import mqservice
from mqservice.embedded import EmbeddedServer
from mqservice.testing import running
from tests.commands import environ
from tests.processes import ROOT, Served, serving

ENGLISH = ROOT / "README.md"
CHINESE = Path(mqservice.__file__).parent / "docs" / "README.zh-CN.md"
MOST_WORDS = 1000


class Block(NamedTuple):
    """A fenced block: its language, "" for a picture, and what is in it."""

    language: str
    text: str


def blocks(path: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]


def shell_lines() -> Iterator[str]:
    for block in blocks(ENGLISH):
        if block.language == "sh":
            yield from (line for line in block.text.replace("\\\n", "").splitlines() if line.strip())


SHELL = list(shell_lines())
PYTHON = [block.text for block in blocks(ENGLISH) if block.language == "python"]


def block_with(text: str) -> str:
    """The one Python block that holds `text`."""
    (found,) = [code for code in PYTHON if text in code]
    return found


def test_readme_when_counted_then_under_1000_words() -> None:
    assert len(ENGLISH.read_text("utf-8").split()) < MOST_WORDS


def test_chinese_edition_when_compared_then_the_same_code_in_the_same_order() -> None:
    assert blocks(CHINESE) == blocks(ENGLISH)


def test_chinese_edition_when_compared_then_the_same_headings_lists_and_names() -> None:
    def outline(path: Path) -> list[str]:
        return re.findall(r"^(?:#+|-) ", path.read_text("utf-8"), re.MULTILINE)

    def names(path: Path) -> set[str]:
        return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", path.read_text("utf-8")))

    assert outline(CHINESE) == outline(ENGLISH)
    assert names(CHINESE) == names(ENGLISH)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the README's handlers in shop.py, and a .venv as make leaves it."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "config.toml"):
        shutil.copy(ROOT / name, place)
    (place / "shop.py").write_text(block_with("@service.handler"))
    (place / ".venv" / "bin").mkdir(parents=True)
    program = place / ".venv" / "bin" / "mqservice"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mqservice "$@"\n')
    program.chmod(0o755)
    return place


@pytest.mark.parametrize("line", SHELL)
def test_shell_line_when_run_word_for_word_then_it_does_not_fail(
    served: Served, server: EmbeddedServer, shop: Path, line: str
) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        asked = subprocess.run(["make", "-n", *words[1:]], cwd=shop, capture_output=True, text=True, check=False)
        assert asked.returncode == 0, asked.stderr
        return
    if shutil.which(words[0], path=f"{shop}:/usr/bin:/bin") is None and not words[0].startswith(".venv"):
        pytest.skip(f"{words[0]} is not installed")
    port = served.url.rpartition(":")[2]
    done = subprocess.run(
        # -f: an answer of 400 or more is a failure.
        ["bash", "-c", 'curl() { command curl -sf "$@"; }; ' + re.sub(r":5000\b", f":{port}", line)],
        cwd=shop,
        env=environ(
            MQSERVICE_REDIS__URL=server.url(5),
            MQSERVICE_REDIS__EMBEDDED="never",
            MQSERVICE_HTTP__PORT="0",
            MQSERVICE_URL=served.url,
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)


@pytest.mark.parametrize("code", PYTHON)
def test_python_block_when_read_then_it_is_python(code: str) -> None:
    compile(code, "README.md", "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@pytest.fixture
def shop_module(shop: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The README's handlers, imported in the checkout."""
    monkeypatch.chdir(shop)
    module = types.ModuleType("shop")
    exec(compile(block_with("@service.handler"), "shop.py", "exec"), module.__dict__)
    return module


async def test_handlers_when_tested_as_the_readme_shows_then_the_test_passes(shop_module: types.ModuleType) -> None:
    names = dict(shop_module.__dict__)
    exec(compile(block_with("mqservice_kit"), "test_shop.py", "exec"), names)
    assert names["pytest_plugins"] == ["mqservice.pytest_plugin"]
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    await test(running)


async def test_handlers_when_a_body_misfits_or_is_refused_then_dead_as_the_readme_says(
    shop_module: types.ModuleType,
) -> None:
    async with running(shop_module.service) as kit:
        await kit.send("emails", {"to": "a@b"})
        await kit.send("emails", {"to": "a@example.invalid", "subject": "hi"})
        misfit, refused = await kit.drain(timeout=10)
        assert (misfit.state, misfit.reason) == ("dead", "undecodable")
        assert (refused.state, refused.reason) == ("dead", "rejected")


def test_handlers_when_served_as_the_readme_says_then_they_are_consumed(other_url: str, shop: Path) -> None:
    with serving(other_url, "--app", "shop:service", PYTHONPATH=f"{shop}:{ROOT}") as running_shop:
        assert "emails" in "\n".join(running_shop.started().err)
