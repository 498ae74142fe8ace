"""A hundred thousand messages in a queue: the page is as it always is. How soon is noted in tests/screenshots."""

import json

import pytest
from playwright.async_api import expect

from tests.processes import Served
from tests.web.conftest import SCREENSHOTS, OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT = 100_000
BATCH = 10_000
SEEN = """
new MutationObserver((_, observer) => {
    if (!document.querySelector(".tile b, .pager")) return;
    requestAnimationFrame(() => performance.mark("shown"));
    observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""
"""Marks the moment when the numbers are on the page."""
TIMES = """
Object.fromEntries([...performance.getEntriesByType("paint"), ...performance.getEntriesByName("shown"),
    ...performance.getEntriesByType("resource").filter(({ name }) => name.includes("state="))]
    .map(({ name, startTime, duration }) => [name.split("/v1").pop(), Math.round(startTime + duration)]))
"""


async def test_page_when_a_queue_holds_a_hundred_thousand_messages_then_it_counts_and_lists_them(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page()
    assert (await page.request.post(f"{served.url}/v1/queues/echo/pause")).ok
    lines = "\n".join(json.dumps({"body": {"number": n}}) for n in range(BATCH))
    for _ in range(COUNT // BATCH):
        answer = await page.request.post(
            f"{served.url}/v1/queues/echo/messages/batch", data=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.ok
    await page.add_init_script(SEEN)

    times = {}
    for name, route in (("overview", "#/"), ("list", "#/queues/echo?state=ready")):
        await page.goto("about:blank")
        await page.goto(f"{served.url}/dashboard{route}")
        await expect(page.locator(".tile b").first).to_have_text("100,000")
        if name == "list":
            await page.locator(".pager").get_by_role("button", name="Next").click()
            await expect(page.locator(".pager")).to_contain_text("26–50")
        times[name] = await page.evaluate(TIMES)
    (SCREENSHOTS / "paint.json").write_text(json.dumps(times, indent=2))
