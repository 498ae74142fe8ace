"""HTTP load from another process: wrk where it is installed, else a client of our own (`python -m tests.bench.load`).

Keep-alive connections, each of which sends its next request when the answer is there.
"""

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from tests.bench.children import ROOT
from tests.bench.subject import percentiles

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What came back."""

    per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Post:
    """What is sent."""

    url: str
    body: bytes
    content_type: str = "application/json"


async def load(post: Post, seconds: float, connections: int = 100) -> Load:
    """Make load for so long. Raises RuntimeError when anything but 2xx came back."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(post.body)
        file.flush()
        program = shutil.which("wrk")
        whole_s = max(1, round(seconds))  # wrk knows no others
        if program:
            command = [program, "-t1", f"-c{connections}", f"-d{whole_s}", "--timeout", "10", "-s", str(SCRIPT)]
            command += [post.url, "--", file.name, post.content_type]
        else:
            command = [sys.executable, "-m", "tests.bench.load", post.url, file.name, post.content_type]
            command += [str(connections), str(whole_s)]
        output = await _run(command, whole_s + 20)
    result = json.loads(output.strip().splitlines()[-1])
    if result["errors"]:
        raise RuntimeError(f"{post.url}: {result['errors']} of {result['requests']} requests failed")
    return Load(result["requests"] / result["s"], result["p50"], result["p99"])


async def _run(command: list[str], timeout_s: float) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return output.decode()


class Connection(asyncio.Protocol):
    """One keep-alive connection: request, answer, request."""

    def __init__(self, request: bytes, end: float, took_ms: list[float]) -> None:
        self._request, self._end, self._took_ms = request, end, took_ms
        self._answer = b""
        self.errors = 0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head_end = self._answer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._answer[:head_end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(self._answer) < head_end + 4 + length:
            return
        self._took_ms.append((time.perf_counter() - self._began_at) * 1000)
        self.errors += head[9:10] != b"2"
        self._answer = b""
        if time.perf_counter() < self._end:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.errors += error is not None
        self.closed.set_result(None)

    def _send(self) -> None:
        self._began_at = time.perf_counter()
        self._transport.write(self._request)


async def main(url: str, file: str, content_type: str, connections: str, seconds: str) -> None:
    """Do what wrk would."""
    parts, body = urlsplit(url), Path(file).read_bytes()
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    loop, took_ms = asyncio.get_running_loop(), []
    began_at = time.perf_counter()
    made = await asyncio.gather(
        *(
            loop.create_connection(
                lambda: Connection(request, began_at + float(seconds), took_ms), parts.hostname, parts.port
            )
            for _ in range(int(connections))
        )
    )
    clients = [client for _, client in made]
    await asyncio.gather(*(client.closed for client in clients))
    cuts = percentiles(took_ms)
    errors = sum(client.errors for client in clients)
    print(json.dumps({"requests": len(took_ms), "s": time.perf_counter() - began_at, **cuts, "errors": errors}))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
