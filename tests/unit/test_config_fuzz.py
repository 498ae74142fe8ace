"""Configuration that anybody may have written: it is used, or refused with an error that names what is wrong."""

import contextlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqservice.config import Config, load
from mqservice.errors import ConfigError
from tests.processes import ROOT

EXAMPLE = (ROOT / "config.toml").read_bytes()
KEYS = sorted(f"{section}.{key}" for section, keys in tomllib.loads(EXAMPLE.decode()).items() for key in keys)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", "0", "nan", "1e999", "redis://", "redis://[::1", "redis://h:99999999/x", "\ud800", "\0", "a" * 600]
    ),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
PATIENT = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def loaded(path: Path | None, environ: dict[str, str], flags: dict[str, tuple[str, object]] | None = None) -> None:
    """Load it, look at it as `config show` does, and resolve a queue; only a ConfigError may say no."""
    with contextlib.suppress(ConfigError):
        found = load(path, environ, flags)
        assert isinstance(found.config, Config)
        assert all(isinstance(repr(row), str) for row in found.rows())
        assert found.config.queue_options("jobs").name == "jobs"


@given(st.binary(max_size=200))
@PATIENT
def test_file_when_it_is_any_bytes_then_it_is_used_or_refused(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    loaded(file, {})


@given(st.lists(st.tuples(st.integers(0, len(EXAMPLE)), st.integers(0, 30), st.binary(max_size=8)), max_size=4))
@PATIENT
def test_file_when_it_is_nearly_the_example_then_it_is_used_or_refused(
    file: Path, changes: list[tuple[int, int, bytes]]
) -> None:
    text = EXAMPLE
    for at, cut, data in changes:
        text = text[:at] + data + text[at + cut :]
    file.write_bytes(text)
    loaded(file, {})


def toml(value: Any) -> str:
    """A value as TOML has it."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            escaped = "".join(
                c if " " < c < "\x7f" and c not in '"\\' else f"\\u{ord(c):04x}" for c in value if ord(c) < 0x10000
            )
            return f'"{escaped}"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case _:
            return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"


@given(
    st.dictionaries(
        st.sampled_from([*KEYS, "schedules", "queues.x.key", "channels.x.key", "nothing.at_all"]), VALUES, max_size=3
    )
)
@PATIENT
def test_file_when_its_values_are_anything_then_it_is_used_or_refused(file: Path, values: dict[str, Any]) -> None:
    file.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()), "utf-8")
    loaded(file, {})


VARIABLES = st.one_of(
    st.sampled_from([f"MQSERVICE_{key.replace('.', '__').upper()}" for key in KEYS]),
    st.text(max_size=20).map(lambda name: f"MQSERVICE_{name}"),
    st.sampled_from(
        [
            "MQSERVICE_",
            "MQSERVICE___",
            "MQSERVICE_QUEUES__A__KEY",
            "MQSERVICE_QUEUES____KEY",
            "MQSERVICE_SCHEDULES__0__CRON",
        ]
    ),
)


@given(st.dictionaries(VARIABLES, SCALARS.map(str), max_size=3))
@PATIENT
def test_environment_when_it_is_anything_then_it_is_used_or_refused(environ: dict[str, str]) -> None:
    loaded(ROOT / "config.toml", environ)


@given(st.dictionaries(st.sampled_from(KEYS), st.tuples(st.just("--flag"), VALUES), max_size=3))
@PATIENT
def test_flags_when_they_are_anything_then_they_are_used_or_refused(flags: dict[str, tuple[str, object]]) -> None:
    loaded(ROOT / "config.toml", {}, flags)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "{b = " * 5_000])
def test_file_when_nested_too_deep_then_it_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(file, {})
