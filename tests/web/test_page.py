"""How the dashboard loads and looks: languages, colours, widths, keyboard, accessibility."""

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.processes import Served, serving
from tests.web.conftest import OpenPage, shoot

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = (Path(__file__).parent / "vendor/axe.min.js").read_text()
FITTING = "() => [...document.querySelectorAll('.card')].every(its => its.scrollWidth <= its.clientWidth)"
ROUTES = ["", "#/messages?id=order-1", "#/queues/mails?state=dead", "#/channels/prices.eur", "#/schedules"]


@pytest.fixture(scope="module")
def lived_in(served: Served) -> Served:
    """A service with something of everything to show."""

    def post(path: str, body: object, method: str = "POST") -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(served.url + path, json.dumps(body).encode(), headers, method=method)
        urllib.request.urlopen(request, timeout=15).close()

    post("/v1/queues/mails/messages?id=order-1&wait=10", {"nobody": 1})
    post("/v1/queues/echo/messages?id=later&delay=1h", 1)
    post("/v1/channels/prices.eur/messages", 1.07)
    post("/v1/schedules/tick", {"queue": "echo", "every": "1h", "body": "tick"}, "PUT")
    return served


async def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it is; evaluated by the debugger, so the page's policy stays in force."""
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run().then(({ violations }) => violations)")
    return [f"{v['id']}: {node['target']} {node['failureSummary']}" for v in found for node in v["nodes"]]


async def test_page_when_opened_then_the_numbers_at_a_glance_and_a_chart_that_moves_are_there(
    open_page: OpenPage, lived_in: Served
) -> None:
    page = await open_page()
    names = ["Waiting", "Active", "Scheduled", "Dead", "In/s", "Done/s", "p95 ms", "Oldest"]

    await expect(page.locator(".tile > :first-child")).to_have_text(names)
    await expect(page.locator(".tile.red b")).to_have_text("1")
    await expect(page.locator(".chart canvas")).to_be_visible()
    await expect(page.get_by_role("cell", name="tick")).to_be_visible()
    before = await page.evaluate("document.querySelector('.chart canvas').toDataURL()")
    await page.wait_for_function("before => document.querySelector('.chart canvas').toDataURL() !== before", arg=before)
    for name in ("1 h", "24 h"):
        async with page.expect_response(lambda answer: "/v1/stats?range=" in answer.url) as answered:
            await page.get_by_role("button", name=name).click()
        assert (await answered.value).ok


async def test_page_when_nothing_was_ever_sent_then_it_teaches_four_curl_lines(
    open_page: OpenPage, other_url: str
) -> None:
    with serving(other_url, "--no-consumers") as fresh:
        page = await open_page(base=fresh.started().url, ends=True)

        await expect(page.locator(".steps pre")).to_have_count(4)
        await shoot(page, "empty")
        assert await violations(page) == []
        lines = await page.locator(".steps pre").all_inner_texts()
        assert all(line.startswith("curl ") and fresh.url in line for line in lines)
        subprocess.run(["sh", "-c", lines[0]], capture_output=True, timeout=10, check=True)
        await expect(page.locator("td .badge")).to_have_text("no consumers")
        await expect(page.locator(".steps")).to_have_count(0)


async def test_language_when_switched_then_all_is_chinese_and_stays_so(open_page: OpenPage) -> None:
    page = await open_page()
    await page.get_by_label("Language").select_option("zh-CN")

    await expect(page.locator("header nav a[aria-current]")).to_have_text("概览")
    await page.reload()
    await expect(page.locator("header nav a[aria-current]")).to_have_text("概览")
    assert await page.evaluate("document.documentElement.lang") == "zh-CN"
    assert await violations(page) == []


async def test_language_when_the_browser_prefers_chinese_then_it_is_chinese(open_page: OpenPage) -> None:
    page = await open_page(locale="zh-CN")

    await expect(page.locator("header nav a[aria-current]")).to_have_text("概览")


async def test_colours_when_dark_is_chosen_then_they_are_dark_before_the_next_paint_too(open_page: OpenPage) -> None:
    page = await open_page()
    background = "getComputedStyle(document.body).backgroundColor"
    assert await page.evaluate(background) == "rgb(250, 247, 243)"
    await page.get_by_label("Colours").select_option("dark")
    assert await page.evaluate(background) == "rgb(20, 21, 23)"
    await page.reload()
    assert await page.evaluate(background) == "rgb(20, 21, 23)"


@pytest.mark.parametrize("route", [*ROUTES, "#/queues/mails/messages/order-1"])
async def test_page_when_audited_light_and_dark_then_nothing_is_found_and_a_phone_scrolls_one_way(
    open_page: OpenPage, lived_in: Served, route: str
) -> None:
    page = await open_page(route)
    await expect(page.get_by_text("Loading…")).to_have_count(0)
    assert await violations(page) == []
    await page.emulate_media(color_scheme="dark")
    assert await violations(page) == []
    for width in (1160, 1100, 900, 768, 390):
        await page.set_viewport_size({"width": width, "height": 844})
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        await page.wait_for_function(FITTING)
    assert await violations(page) == []


@pytest.mark.parametrize("path", ["/", "/docs", "/problems", "/problems/queue-full"])
async def test_page_without_a_script_when_audited_then_nothing_is_found(
    open_page: OpenPage, served: Served, path: str
) -> None:
    page = await open_page()
    await page.goto(served.url + path)
    assert await violations(page) == []
    await page.emulate_media(color_scheme="dark")
    assert await violations(page) == []


async def test_dialog_when_audited_then_nothing_is_found(open_page: OpenPage, lived_in: Served) -> None:
    page = await open_page("#/queues/mails")
    await page.get_by_role("button", name="Purge").click()
    await page.get_by_role("dialog").wait_for()
    assert await violations(page) == []


async def test_keyboard_when_used_alone_then_it_skips_to_the_content_and_pauses_a_queue(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page("#/queues/echo")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Pause: echo")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Resume: echo")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Pause: echo")).to_be_visible()
    await page.get_by_role("link", name="Schedules").press("Enter")
    await expect(page.get_by_role("heading", name="Schedules", level=1)).to_be_focused()
