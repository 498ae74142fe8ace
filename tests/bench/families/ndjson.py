"""Batches over HTTP: NDJSON of 1,000 lines a request, each line validated, all ids returned."""

from tests.bench import yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.load import Post, load
from tests.bench.subject import UNREAD

FIGURE = "NDJSON batches of 1,000 over HTTP, messages"
BARE = "yardstick: bare aiohttp handler that reads such a body, lines"
LINES = 1000
BODY = b"".join(b'{"body": {"n": %d}}\n' % number for number in range(LINES))
CONNECTIONS = 4
SECONDS = 2.0


async def measure(lab: Lab, plan: Plan) -> Rounds:
    subject = await lab.subject(consumers=False)
    kind = "application/x-ndjson"
    bare = Post((await lab.child("tests.bench.bare_http")).hello["url"] + "/read", BODY, kind)
    ours = Post(f"{subject.hello['url']}/v1/queues/{UNREAD}/messages/batch", BODY, kind)
    seconds = 1.0 if plan.quick else SECONDS
    await _check(lab, ours)
    for _ in range(plan.rounds):
        yardstick = await load(bare, seconds, CONNECTIONS)
        figure = await load(ours, seconds, CONNECTIONS)
        await lab.clear()
        pipeline = await yardsticks.pipeline(lab)
        yield {yardsticks.PIPELINE: pipeline, BARE: yardstick.per_s * LINES, FIGURE: figure.per_s * LINES}


async def _check(lab: Lab, post: Post) -> None:
    """Make sure that what is measured does what it says. Raises RuntimeError."""
    headers = {"Content-Type": post.content_type}
    async with lab.http.post(post.url, data=post.body, headers=headers) as response:
        answer = await response.json()
    if response.status != 202 or len(set(answer["ids"])) != LINES:
        raise RuntimeError(f"{post.url}: {response.status}, {len(answer.get('ids', []))} ids")


FAMILY = Family(
    "ndjson",
    measure,
    (Figure(yardsticks.PIPELINE), Figure(BARE), Figure(FIGURE)),
    (Ratio(FIGURE, yardsticks.PIPELINE, quick_at_least=1.8), Ratio(FIGURE, BARE)),
)
