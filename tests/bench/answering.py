"""The other side of `children`: the loop of a process that does what its stdin says, one JSON line at a time."""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

_answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what else is printed, as logs are, is no answer

Verb = Callable[..., Awaitable[dict[str, Any]]]


async def answer(verbs: Mapping[str, Verb], hello: dict[str, Any]) -> None:
    """Say hello, then answer until stdin ends."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(hello)
    while line := await reader.readline():
        wish = json.loads(line)
        try:
            say(await verbs[wish.pop("do")](**wish))
        except Exception:  # noqa: BLE001 - told to who asked
            say({"error": traceback.format_exc()})


def say(fact: dict[str, Any]) -> None:
    print(json.dumps(fact), file=_answers, flush=True)
