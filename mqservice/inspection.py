"""Looks at a Redis server: what it is, how fast it answers, what it keeps. Changes nothing.

Called by `mqservice check` and at the start of the service. Never touches a queue.
"""

import re
import statistics
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

UNKNOWN = "unknown"

_PINGS = 20
# Scripts with flags came with Redis 7.0; Valkey forked from 7.2.
_OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself. What it may not tell us (ACL) is "unknown", or an empty tuple."""

    product: Literal["Redis", "Valkey"]
    version: str
    version_numbers: tuple[int, ...]
    latency_ms: float
    maxmemory_policy: str
    persistence: str
    # None: could not be told.
    persistent: bool | None


class Problem(NamedTuple):
    """Something about a server that its owner should change. `fatal`: mqservice cannot work on it."""

    subject: Literal["version", "maxmemory-policy", "persistence"]
    text: str
    fatal: bool


async def inspect(client: Redis) -> ServerFacts:
    """Ask a server for its facts: 22 round trips or so, no deadline of its own.

    Driver errors pass through: run it inside `Connections.guard`.
    """
    latency_ms = await _median_ping_ms(client)
    info = await _info(client)
    settings = await _settings(client)
    product: Literal["Redis", "Valkey"] = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get(f"{product.lower()}_version", UNKNOWN))
    persistence, persistent = _persistence(info, settings)
    return ServerFacts(
        product=product,
        version=version,
        version_numbers=tuple(int(number) for number in re.findall(r"\d+", version)[:3]),
        latency_ms=latency_ms,
        maxmemory_policy=settings.get("maxmemory-policy") or str(info.get("maxmemory_policy", UNKNOWN)),
        persistence=persistence,
        persistent=persistent,
    )


def problems(facts: ServerFacts) -> list[Problem]:
    """List what is wrong with a server, the fatal first; empty when all is well."""
    found = []
    oldest = _OLDEST[facts.product]
    if facts.version_numbers and facts.version_numbers < oldest:
        needed = ", ".join(f"{product} {major}.{minor}" for product, (major, minor) in _OLDEST.items())
        found.append(Problem("version", f"{facts.product} {facts.version} is too old; at least {needed}", fatal=True))
    if not facts.version_numbers:
        found.append(Problem("version", "unknown: this user may not run INFO", fatal=False))
    if facts.maxmemory_policy != "noeviction":
        found.append(Problem("maxmemory-policy", _policy_text(facts.maxmemory_policy), fatal=False))
    if facts.persistent is not True:
        found.append(Problem("persistence", facts.persistence, fatal=False))
    return found


async def _median_ping_ms(client: Redis) -> float:
    times = []
    for _ in range(_PINGS):
        started = time.perf_counter()
        await client.ping()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


async def _info(client: Redis) -> Mapping[str, object]:
    try:
        answer: dict[str, object] = await client.info()
    except ResponseError:
        return {}
    return answer


async def _settings(client: Redis) -> Mapping[str, str]:
    """Those settings that CONFIG GET tells; none where an ACL or a managed service forbids it."""
    try:
        answer = await client.config_get("maxmemory-policy", "appendonly", "appendfsync", "save")
    except ResponseError:
        return {}
    return {_text(key): _text(value) for key, value in answer.items()}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _persistence(info: Mapping[str, object], settings: Mapping[str, str]) -> tuple[str, bool | None]:
    """Say in a sentence what survives a restart of the server, and whether anything does (None: unknown)."""
    if settings.get("appendonly") == "yes" or info.get("aof_enabled") == 1:
        fsync = settings.get("appendfsync", UNKNOWN)
        return f"append-only file, fsync {fsync}{_POWER_LOSS.get(fsync, '')}", True
    if "save" not in settings:
        if "aof_enabled" not in info:
            return "unknown: this user may run neither INFO nor CONFIG GET", None
        return "no append-only file; snapshots unknown, since this user may not run CONFIG GET", None
    if points := settings["save"].split():
        rules = ", ".join(f"{seconds} s/{changes}" for seconds, changes in zip(points[::2], points[1::2], strict=False))
        return f"snapshots only ({rules} changes): a crash of Redis loses what came after the last one", True
    return "off: a restart of Redis loses everything", False


_POWER_LOSS = {
    "everysec": ": a power failure can lose up to 2 s",
    "always": ": nothing acknowledged is lost",
    "no": ": a power failure can lose up to 30 s",
}


def _policy_text(policy: str) -> str:
    if policy == UNKNOWN:
        return "unknown: make sure that it is noeviction"
    return f"{policy}: when memory is full, Redis DROPS WHOLE QUEUES without a word; set noeviction"
