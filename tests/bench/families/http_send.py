"""Sends over HTTP, 100 keep-alive connections, each answered once Redis has the message."""

from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.load import Post, load
from tests.bench.subject import UNREAD

RATE, P50, P99 = "HTTP send, 100 connections", "HTTP send, p50", "HTTP send, p99"
BARE, BARE_P50, BARE_P99 = (
    "yardstick: bare aiohttp handler that reads the body",
    "yardstick: bare aiohttp handler, p50",
    "yardstick: bare aiohttp handler, p99",
)
BODY = b'{"to": "a@b", "subject": "hi"}'
SECONDS = 3.0


async def measure(lab: Lab, plan: Plan) -> Rounds:
    subject = await lab.subject(consumers=False)
    bare = Post((await lab.child("tests.bench.bare_http")).hello["url"] + "/read", BODY)
    ours = Post(f"{subject.hello['url']}/v1/queues/{UNREAD}/messages", BODY)
    seconds = 1.0 if plan.quick else SECONDS
    for post in (bare, ours):
        await load(post, 1)  # warm
    for _ in range(plan.rounds):
        yardstick = await load(bare, seconds)
        figure = await load(ours, seconds)
        await lab.clear()
        yield {
            BARE: yardstick.per_s,
            BARE_P50: yardstick.p50_ms,
            BARE_P99: yardstick.p99_ms,
            RATE: figure.per_s,
            P50: figure.p50_ms,
            P99: figure.p99_ms,
        }


FAMILY = Family(
    "http-send",
    measure,
    (
        Figure(BARE),
        Figure(BARE_P50, "ms"),
        Figure(BARE_P99, "ms"),
        Figure(RATE),
        Figure(P50, "ms"),
        Figure(P99, "ms"),
    ),
    (
        Ratio(RATE, BARE, at_least=0.8, quick_at_least=0.45),
        Ratio(P50, BARE_P50),
        Ratio(P99, BARE_P99, at_most=1.5, quick_at_most=3),
    ),
)
