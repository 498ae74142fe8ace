"""Bodies as arguments: text, `-` for stdin, `@file`."""

import sys
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from mqservice.cli.problems import UsageProblem

JSON_TYPE: Final = "application/json"
_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Body(NamedTuple):
    """A body and its content type."""

    content: bytes
    type: str


def read_body(argument: str) -> Body:
    """Return the body that an argument means: JSON when it is, else text, else bytes.

    `-` reads stdin to its end, `@file` a file; `@@` begins a text with an @. Raises UsageProblem.
    """
    if argument == "-":
        content = sys.stdin.buffer.read()
    elif argument.startswith("@") and not argument.startswith("@@"):
        content = _file(argument[1:])
    else:
        content = argument.removeprefix("@" if argument.startswith("@@") else "").encode(errors="surrogateescape")
    return Body(content, _type(content))


def is_json(content: bytes) -> bool:
    """Tell whether it is a JSON document."""
    try:
        msgspec.json.decode(content)
    except _FAULTS:
        return False
    return True


def stdin_is_terminal() -> bool:
    """Tell whether a person would have to type the input."""
    return sys.stdin is None or sys.stdin.isatty()


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageProblem(f"cannot read {name}: {error.strerror or error}") from error


def _type(content: bytes) -> str:
    if is_json(content):
        return JSON_TYPE
    try:
        content.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"
