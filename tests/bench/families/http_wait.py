"""Sends over HTTP that wait for the result: a steady hundred, and a thousand at once."""

from tests.bench.families.http_send import BARE, SECONDS
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.load import Post, load

RATE, P99 = "HTTP send with ?wait=, 100 connections", "HTTP send with ?wait=, p99"
PLAIN_P99 = "yardstick: 1,000 GET /livez at once, p99"
CROWD_P99 = "1,000 sends with ?wait= at once, p99"
CLIENTS = 1000


async def measure(lab: Lab, plan: Plan) -> Rounds:
    subject = await lab.subject(consumers=True)
    crowd = await lab.child("tests.bench.crowd")
    url = subject.hello["url"]
    waiting = f"{url}/v1/queues/straight/messages?wait=10"
    bare = Post((await lab.child("tests.bench.bare_http")).hello["url"] + "/read", b"7")
    seconds = 1.0 if plan.quick else SECONDS
    for post in (bare, Post(waiting, b"7")):
        await load(post, 1)  # warm
    await crowd.call("at_once", method="GET", url=f"{url}/livez", clients=CLIENTS)  # opens the connections
    for _ in range(plan.rounds):
        yardstick = await load(bare, seconds)
        figure = await load(Post(waiting, b"7"), seconds)
        plain = await crowd.call("at_once", method="GET", url=f"{url}/livez", clients=CLIENTS)
        waits = await crowd.call("at_once", method="POST", url=waiting, clients=CLIENTS, body=7)
        await lab.settled("straight")
        await lab.clear()
        yield {
            BARE: yardstick.per_s,
            RATE: figure.per_s,
            P99: figure.p99_ms,
            PLAIN_P99: plain["p99"],
            CROWD_P99: waits["p99"],
        }


FAMILY = Family(
    "http-wait",
    measure,
    (Figure(BARE), Figure(RATE), Figure(P99, "ms"), Figure(PLAIN_P99, "ms"), Figure(CROWD_P99, "ms")),
    (Ratio(RATE, BARE, quick_at_least=0.1), Ratio(CROWD_P99, PLAIN_P99, quick_at_most=4)),
)
