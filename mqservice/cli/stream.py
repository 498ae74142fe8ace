"""Many messages through the batch route, while they come in: batches, retries, a progress bar."""

import os
import select
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from stat import S_ISREG
from typing import Any, Final, NamedTuple, Protocol

import click
import msgspec

from mqservice.cli.body import JSON_TYPE, Body, is_json
from mqservice.cli.output import console, print_line, say
from mqservice.cli.problems import Failed, UsageProblem, of_api
from mqservice.client import ApiProblem, Client, NoAnswer, path_of

_MOST: Final = 1000
_MOST_BYTES: Final = 1 << 20
_LINE_BYTES: Final = 16 << 20
"""A longer line than the API takes in all is not read to its end."""
_READ_BYTES: Final = 1 << 16
_LINGER_S: Final = 0.05
"""Lines that trickle in are sent once nothing more came for so long."""
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 5.0
_PASSING: Final = (429, 502, 503, 504)


class Batch(NamedTuple):
    """Items of one request, and where their lines are: `first_line` counts from 1, `input_bytes` from the begin."""

    items: list[bytes]
    first_line: int
    input_bytes: int


class Advance(Protocol):
    """Moves the progress bar to so many messages and bytes."""

    def __call__(self, messages: int, input_bytes: int) -> None:
        """Move it."""


def item_of(body: Body, options: dict[str, Any]) -> bytes:
    """Return the batch item of a body: text that is not JSON becomes a JSON string. Raises UsageProblem."""
    if body.type == JSON_TYPE:
        return _item(body.content, _tail(options))
    try:
        return _item(msgspec.json.encode(body.content.decode()), _tail(options))
    except UnicodeDecodeError:
        raise UsageProblem("a body that is neither JSON nor UTF-8 text can be sent once only") from None


def copies(item: bytes, count: int) -> Iterator[Batch]:
    """Yield batches of the same item, `count` in all."""
    size = max(1, min(_MOST, _MOST_BYTES // len(item)))
    for first in range(0, count, size):
        yield Batch(list(repeat(item, min(size, count - first))), first + 1, 0)


def items_from_stdin(options: dict[str, Any], *, as_they_are: bool) -> Iterator[Batch]:
    """Yield what stdin holds, a message a line, in batches as they come in. Raises Failed for a line that is no JSON.

    What came before that line has been yielded. `as_they_are`: the lines are batch items already.
    """
    tail = _tail(options)
    number, first, size, total = 0, 1, 0, 0
    items: list[bytes] = []
    for line in _lines(sys.stdin.fileno()):
        if line is None or len(items) >= _MOST or size >= _MOST_BYTES:
            if items:
                yield Batch(items, first, total)
            items, first, size = [], number + 1, 0
        if line is None:
            continue
        number, total = number + 1, total + len(line) + 1
        if not line.strip():
            continue
        if not is_json(line):
            if items:
                yield Batch(items, first, total)
            raise Failed(f"line {number} is not JSON")
        items.append(line if as_they_are else _item(line, tail))
        size += len(items[-1])
    if items:
        yield Batch(items, first, total)


def send_stream(api: Client, queue: str, batches: Iterator[Batch], patience_s: float, *, as_json: bool) -> None:
    """Send all batches; ids go to stdout unless that is a terminal, a summary to stderr. Raises ClickException.

    Each batch has an Idempotency-Key, so that it can be tried again without being doubled.
    """
    sent, began_at = 0, time.monotonic()
    prints_ids = as_json or not sys.stdout.isatty()
    try:
        with _progress(shown=not prints_ids or not sys.stdout.isatty()) as advance:
            for batch in batches:
                ids = _send_batch(api, queue, batch, patience_s)
                sent += len(ids)
                if prints_ids:
                    for message_id in ids:
                        print_line({"id": message_id}) if as_json else click.echo(message_id)
                advance(sent, batch.input_bytes)
    except click.ClickException as error:
        raise type(error)(f"{error.message}; {sent:,} messages were sent before") from error
    took_s = time.monotonic() - began_at
    say(f"sent {sent:,} messages in {took_s:.1f} s, {sent / max(took_s, 0.001):,.0f}/s")


def _send_batch(api: Client, queue: str, batch: Batch, patience_s: float) -> list[str]:
    path = path_of("v1", "queues", queue, "messages", "batch")
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": str(uuid.uuid4())}
    body, give_up_at, wait_s = b"\n".join(batch.items), time.monotonic() + patience_s, _FIRST_WAIT_S
    while True:
        try:
            ids: list[str] = api.call("POST", path, body=body, headers=headers, timeout_s=30).json["ids"]
        except (NoAnswer, ApiProblem) as error:
            asked_s = error.retry_after_s if isinstance(error, ApiProblem) else 0.0
            pause_s = min(max(wait_s, asked_s), _LONGEST_WAIT_S)  # a full queue may ask for minutes, and be purged
            passing = isinstance(error, NoAnswer) or error.status in _PASSING or error.kind == "request-running"
            if not passing or time.monotonic() + pause_s > give_up_at:
                raise _at_line(error, batch.first_line) from error
            if wait_s == _FIRST_WAIT_S:
                say(f"{error}; trying again")
        else:
            return ids
        time.sleep(pause_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


def _at_line(error: NoAnswer | ApiProblem, first_line: int) -> click.ClickException:
    ending = of_api(error)
    if isinstance(error, ApiProblem) and "index" in error.members:
        return type(ending)(f"in the batch that begins with line {first_line}: {ending.message}")
    return ending


def _lines(descriptor: int) -> Iterator[bytes | None]:
    """Yield lines as they come in, without line feeds; None when nothing more is there for a moment."""
    held = b""
    while piece := os.read(descriptor, _READ_BYTES):
        *lines, held = (held + piece).split(b"\n")
        yield from lines
        if len(held) > _LINE_BYTES:
            raise Failed(f"a line is longer than {_LINE_BYTES >> 20} MiB")
        if not select.select([descriptor], [], [], _LINGER_S)[0]:
            yield None
    if held:
        yield held


def _tail(options: dict[str, Any]) -> bytes:
    """Return what follows the body in each item: `, "delay": 5}`."""
    return b"".join(b',"%s":%s' % (name.encode(), msgspec.json.encode(value)) for name, value in options.items())


def _item(body: bytes, tail: bytes) -> bytes:
    return b'{"body":%s%s}' % (b" ".join(body.split(b"\n")), tail)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Advance]:
    """Show a bar on stderr while it is a terminal; its end is known when stdin is a file."""
    if not shown or not sys.stderr.isatty():
        yield lambda messages, input_bytes: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending", total=_stdin_bytes())
        yield lambda messages, input_bytes: progress.update(
            task, completed=input_bytes, description=f"sent {messages:,}"
        )


def _stdin_bytes() -> int | None:
    try:
        status = os.fstat(0)
    except OSError:
        return None
    return status.st_size if S_ISREG(status.st_mode) else None
