"""Publishes that reach 1, 10 and 1,000 clients of server-sent events."""

import asyncio
import re
import sys
import time

from tests.bench.children import Child
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.listeners import MARK

ROUTE = re.compile(r"/v1/channels/\{\w+\}/events")
MESSAGES = {1: 1000, 10: 500, 1000: 50}
"""Clients → messages published to them."""
PUBLISHERS = 10
PATIENCE_S = 30.0


def ours(clients: int) -> str:
    return f"fan-out to {clients:,} event streams, deliveries"


def bare(clients: int) -> str:
    return f"yardstick: bare aiohttp writes to {clients:,} streams, deliveries"


async def measure(lab: Lab, plan: Plan) -> Rounds:
    subject = await lab.subject(consumers=False)
    url = subject.hello["url"]
    if not await _has_route(lab, url):
        print("skipped: fan-out: this service has no GET /v1/channels/{channel}/events", file=sys.stderr, flush=True)
        return
    listeners = await lab.child("tests.bench.listeners")
    bare_url = (await lab.child("tests.bench.bare_http")).hello["url"]
    for _ in range(plan.rounds):
        figures: dict[str, float] = {}
        for clients, messages in MESSAGES.items():
            count = max(20, int(messages * plan.scale))
            for name, events, publish in (
                (bare(clients), f"{bare_url}/events", f"{bare_url}/publish"),
                (ours(clients), f"{url}/v1/channels/prices/events", f"{url}/v1/channels/prices/messages"),
            ):
                await listeners.call("listen", url=events, clients=clients)
                await listeners.call("expect", marks=clients * count)
                rate = await _deliveries(lab, listeners, publish, clients, count)
                if rate is not None:
                    figures[name] = rate
        yield figures


async def _has_route(lab: Lab, url: str) -> bool:
    async with lab.http.get(f"{url}/openapi.json") as response:
        paths = (await response.json())["paths"]
    return any("get" in methods for path, methods in paths.items() if ROUTE.fullmatch(path))


async def _deliveries(lab: Lab, listeners: Child, publish: str, clients: int, count: int) -> float | None:
    """Publish; return the deliveries a second, or None when some did not arrive, which is said."""
    left = iter(range(count))

    async def publisher() -> None:
        for _ in left:
            async with lab.http.post(publish, json=MARK.decode()) as response:
                response.raise_for_status()

    began_at = time.monotonic()
    await asyncio.gather(*(publisher() for _ in range(PUBLISHERS)))
    reached = await listeners.call("reached", patience_s=PATIENCE_S)
    if not reached["at"]:
        print(f"no figure: {reached['seen']} of {clients * count} deliveries of {publish}", file=sys.stderr, flush=True)
        return None
    return clients * count / (reached["at"] - began_at)


FAMILY = Family(
    "fan-out",
    measure,
    tuple(Figure(name(clients)) for clients in MESSAGES for name in (bare, ours)),
    tuple(Ratio(ours(clients), bare(clients)) for clients in MESSAGES),
    in_quick=False,
)
