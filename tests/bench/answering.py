"""The other side of `children`: the loop of a process that does what its stdin says, one JSON line at a time."""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Verb = Callable[..., Awaitable[dict[str, Any]]]


async def answer(verbs: Mapping[str, Verb], hello: dict[str, Any]) -> None:
    """Say hello, then answer until stdin ends. Whatever else is printed, as logs are, goes to stderr from here on."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        print(json.dumps(hello), file=answers, flush=True)
        while line := await reader.readline():
            print(json.dumps(await _done(verbs, json.loads(line))), file=answers, flush=True)


async def _done(verbs: Mapping[str, Verb], wish: dict[str, Any]) -> dict[str, Any]:
    try:
        return await verbs[wish.pop("do")](**wish)
    except Exception:  # noqa: BLE001 - told to who asked
        return {"error": traceback.format_exc()}
