"""Processes that are measured or that make load: started, asked by JSON lines, ended."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
CALL_S = 180.0


class Child:
    """A process that answers each JSON line on its stdin with one on its stdout."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.hello: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    async def call(self, do: str, timeout_s: float = CALL_S, **options: Any) -> dict[str, Any]:
        """Let it do something; return what it answers. Raises RuntimeError when it ended instead."""
        self._process.stdin.write(json.dumps({"do": do, **options}).encode() + b"\n")
        return await self.read(timeout_s)

    async def read(self, timeout_s: float) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the child ended with {await self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


@contextlib.asynccontextmanager
async def child(module: str, **options: Any) -> AsyncIterator[Child]:
    """Run `python -m module OPTIONS` until the block ends; it has said hello by a JSON line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, json.dumps(options)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    run = Child(process)
    try:
        run.hello = await run.read(START_S)
        yield run
    finally:
        process.stdin.close()  # what it takes for the end
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
