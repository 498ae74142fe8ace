"""Where a family is measured: a private server of its own, subjects on it, and a look into Redis."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import redis.asyncio

from mqservice import keys
from mqservice.embedded import EmbeddedServer, private_server
from tests.bench.children import Child, child

IN_MEMORY = ("--appendonly", "no")
"""As redis-server comes, and as others measure. What the append-only file costs is a family of its own."""

SCRIPT_CALLS = ("evalsha", "eval", "fcall", "evalsha_ro", "eval_ro", "fcall_ro")
IDLE_LOOK_S = 0.001


class Lab:
    """A server and what runs on it."""

    def __init__(self, server: EmbeddedServer, exits: contextlib.AsyncExitStack) -> None:
        self.server, self._exits = server, exits
        self.redis = redis.asyncio.from_url(server.url(5))
        self.http = aiohttp.ClientSession()

    async def subject(self, *, consumers: bool) -> Child:
        """Start a service process; it ends with the lab. Those with consumers need `pause` before what they get."""
        return await self._exits.enter_async_context(
            child("tests.bench.subject", url=self.server.url(5), consumers=consumers)
        )

    async def child(self, module: str, **options: object) -> Child:
        """Start any other process; it ends with the lab."""
        return await self._exits.enter_async_context(child(module, **options))

    async def another(self, args: Sequence[str]) -> "Lab":
        """Return a lab with a server of its own, which ends with this one."""
        return await self._exits.enter_async_context(lab(args))

    async def clear(self) -> None:
        """Forget everything; outside of what is timed."""
        await self.redis.flushall()
        await self.redis.config_resetstat()

    async def pause(self, subject: Child, queue: str) -> None:
        await self._operate(subject, queue, "pause")

    async def resume(self, subject: Child, queue: str) -> float:
        """Let the consumers begin; return the clock of just before."""
        began_at = time.monotonic()
        await self._operate(subject, queue, "resume")
        return began_at

    async def _operate(self, subject: Child, queue: str, verb: str) -> None:
        async with self.http.post(f"{subject.hello['url']}/v1/queues/{queue}/{verb}") as answer:
            answer.raise_for_status()

    async def settled(self, queue: str, *, ready_too: bool = True) -> float:
        """Wait until no message of a queue is active, nor ready; return the clock then."""
        key = keys.ready(queue)
        while True:
            async with self.redis.pipeline(transaction=True) as pipeline:
                pipeline.zcard(keys.part(key, "active"))
                pipeline.llen(key)
                active, ready = await pipeline.execute()
            if not active and not (ready_too and ready):
                return time.monotonic()
            await asyncio.sleep(IDLE_LOOK_S)

    async def script_calls(self) -> int:
        """Return how many script calls clients have made since `clear`."""
        stats = await self.redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in SCRIPT_CALLS)

    async def cpu_s(self) -> float:
        """Return the CPU time that the server's main thread has taken: what a busy machine disturbs least."""
        facts = await self.redis.info("cpu")
        return float(facts["used_cpu_user_main_thread"]) + float(facts["used_cpu_sys_main_thread"])

    async def used_memory(self) -> int:
        """Return the bytes that the server's data takes, query buffers and the like left out."""
        facts = await self.redis.info("memory")
        clients = int(facts.get("mem_clients_normal", 0)) + int(facts.get("mem_aof_buffer", 0))
        return int(facts["used_memory"]) - clients

    async def aclose(self) -> None:
        await self.http.close()
        await self.redis.aclose()


@contextlib.asynccontextmanager
async def lab(args: Sequence[str] = IN_MEMORY) -> AsyncIterator[Lab]:
    """Run a private server, and end all that was started on it with the block."""
    async with private_server(args) as server, contextlib.AsyncExitStack() as exits:
        place = Lab(server, exits)
        try:
            yield place
        finally:
            await exits.aclose()
            await place.aclose()


async def server_words() -> str:
    """Return what the private server is: its malloc takes up to a third of a drain."""
    async with lab() as place:
        facts = await place.redis.info()
        name = facts.get("server_name", "redis")
        version = facts.get(f"{name}_version", facts["redis_version"])
        malloc = facts["mem_allocator"]
        with contextlib.suppress(OSError):  # no /proc here
            if "jemalloc" in Path(f"/proc/{facts['process_id']}/maps").read_text():
                malloc = "jemalloc"
        return f"server: {name} {version}, malloc of {malloc}"


def slug(text: str) -> str:
    """Return a figure's name as one types it after --only."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
