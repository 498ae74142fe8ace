"""What the keeper gives its server: jemalloc where that works, and nothing that harms where it does not."""

import os
from pathlib import Path

import pytest

from mqservice import keeper


def program(directory: Path, script: str) -> str:
    """Make a program that stands for the server's."""
    path = directory / "server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")  # so that it is undone
    monkeypatch.delenv("LD_PRELOAD")


def test_preload_jemalloc_when_the_program_runs_with_it_then_jemalloc_is_preloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "JEMALLOC", "")  # nothing to preload: the linker has no reason to complain
    keeper.preload_jemalloc(program(tmp_path, '[ "$1" = --version ]'))
    assert os.environ["LD_PRELOAD"] == ""


@pytest.mark.parametrize("script", ["echo 'cannot be preloaded: ignored.' >&2", "exit 1", "kill -SEGV $$", "sleep 5"])
def test_preload_jemalloc_when_the_program_does_not_run_well_with_it_then_nothing_is_preloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(keeper, "JEMALLOC", "")
    monkeypatch.setattr(keeper, "PROBE_S", 0.3)
    keeper.preload_jemalloc(program(tmp_path, script))
    assert "LD_PRELOAD" not in os.environ


def test_preload_jemalloc_when_the_library_is_missing_then_nothing_is_preloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "JEMALLOC", "libmqservice-has-no-such.so.9")
    keeper.preload_jemalloc("/bin/true")
    assert "LD_PRELOAD" not in os.environ


def test_preload_jemalloc_when_the_program_is_missing_then_nothing_is_preloaded(tmp_path: Path) -> None:
    keeper.preload_jemalloc(str(tmp_path / "none"))
    assert "LD_PRELOAD" not in os.environ


def test_preload_jemalloc_when_something_is_preloaded_already_then_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libown.so")
    keeper.preload_jemalloc(program(tmp_path, "exit 0"))
    assert os.environ["LD_PRELOAD"] == "libown.so"
