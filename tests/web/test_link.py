"""What connects the dashboard with the service: one stream, outages, tokens."""

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from mqservice.embedded import EmbeddedServer
from tests.processes import Served, serving
from tests.waiting import until_async
from tests.web.conftest import OpenPage, shoot
from tests.web.test_page import violations

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKENS = """
[[auth.tokens]]
name = "viewer"
sha256 = "{viewer}"
scopes = ["read"]

[[auth.tokens]]
name = "boss"
sha256 = "{boss}"
scopes = ["send", "read", "work", "admin"]

[[auth.tokens]]
name = "clerk"
sha256 = "{clerk}"
scopes = ["send", "read", "work"]
queues = ["echo"]
"""


async def streams(page: Page, served: Served) -> int:
    """How many streams are open at the service, by its own report."""
    answer = await page.request.get(f"{served.url}/v1/processes")
    return sum(process["streams"] for process in (await answer.json())["processes"])


async def hide(page: Page, hidden: bool) -> None:
    """Let the page believe that its tab is in the background, or in front again."""
    await page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def test_stream_when_the_tab_is_hidden_or_paused_then_it_is_closed_until_it_is_seen_again(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page()
    await until_async(lambda: _is(page, served, 1))
    await hide(page, True)
    await until_async(lambda: _is(page, served, 0))
    await hide(page, False)
    await until_async(lambda: _is(page, served, 1))
    await page.get_by_role("button", name="Live").click()
    await expect(page.locator(".link.paused")).to_be_visible()
    await until_async(lambda: _is(page, served, 0))


async def test_stream_when_a_channel_is_followed_then_it_is_the_only_one_and_the_numbers_go_on(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page("#/channels/prices.*")
    await until_async(lambda: _is(page, served, 1))
    await page.request.post(f"{served.url}/v1/channels/prices.usd/messages", data="1")
    await expect(page.locator("tr", has_text="prices.usd")).to_be_visible()
    await page.get_by_role("link", name="Overview").click()
    await until_async(lambda: _is(page, served, 1))


async def _is(page: Page, served: Served, count: int) -> bool:
    return await streams(page, served) == count


async def test_banner_when_redis_is_away_then_it_says_so_until_it_is_back(
    open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = await EmbeddedServer.join(tmp_path_factory.mktemp("away"))
    pid = server.server_pid()
    assert pid
    try:
        with serving(server.url(0)) as running:
            page = await open_page(base=running.started().url, ends=True)
            await expect(page.locator(".link.live")).to_be_visible()
            os.kill(pid, signal.SIGSTOP)
            try:
                await expect(page.get_by_role("alert").filter(has_text="Redis has been away")).to_be_visible()
                await expect(page.locator(".link.away")).to_be_visible()
                await shoot(page, "redis-away")
                assert await violations(page) == []
            finally:
                os.kill(pid, signal.SIGCONT)
            await expect(page.locator(".banner.shown")).to_have_count(0)
    finally:
        await asyncio.to_thread(server.leave)


async def test_banner_when_the_service_is_away_then_it_says_so_and_goes_on_with_the_next_one(
    open_page: OpenPage, other_url: str
) -> None:
    with serving(other_url) as first:
        page = await open_page(base=first.started().url, ends=True)
        port = first.url.rpartition(":")[2]
        first.signal(signal.SIGTERM)
        await expect(page.get_by_role("alert").filter(has_text="does not answer")).to_be_visible()
        assert first.exit_code() == 0
    with serving(other_url, "--port", port) as second:
        second.started()
        await expect(page.locator(".banner.shown")).to_have_count(0)


@pytest.fixture(scope="module")
def guarded(chromium: str, other_url: str, tmp_path_factory: pytest.TempPathFactory):
    """A service that asks for tokens: those of `viewer`, `boss` and `clerk` are their names, twice."""
    path: Path = tmp_path_factory.mktemp("tokens") / "config.toml"
    hashes = {name: hashlib.sha256((name * 2).encode()).hexdigest() for name in ("viewer", "boss", "clerk")}
    path.write_text(TOKENS.format(**hashes))
    with serving(other_url, "--config", str(path)) as running:
        yield running.started()


async def sign_in(page: Page, name: str) -> None:
    await page.get_by_label("Token").fill(name * 2)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("button", name=f"Sign out {name}")).to_be_visible()


async def test_page_when_the_service_has_tokens_then_it_asks_for_one_and_forgets_it_on_leaving(
    open_page: OpenPage, guarded: Served
) -> None:
    page = await open_page(base=guarded.url)
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert").filter(has_text="not known")).to_be_visible()
    assert await violations(page) == []
    await sign_in(page, "boss")
    await expect(page.get_by_role("button", name="Pause: echo")).to_be_visible()
    await page.reload()
    await page.get_by_role("button", name="Sign out boss").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("Token")).to_be_visible()


async def test_actions_when_the_token_may_only_read_then_none_is_shown_and_none_is_done(
    open_page: OpenPage, guarded: Served
) -> None:
    page = await open_page(base=guarded.url)
    await sign_in(page, "viewer")
    await expect(page.get_by_role("link", name="echo", exact=True).first).to_be_visible()
    for word in ("Pause: echo", "Replay…: echo", "Purge"):
        await expect(page.get_by_role("button", name=word)).to_have_count(0)
    await expect(page.locator("form.send")).to_have_count(0)
    await page.goto(f"{guarded.url}/dashboard#/queues/echo")
    await expect(page.locator(".tabs")).to_be_visible()
    assert await page.locator("main").get_by_role("button").all_inner_texts() == ["2 min", "1 h", "24 h"]
    assert (await page.request.post(f"{guarded.url}/v1/queues/echo/pause")).status == 403


async def test_page_when_the_token_is_for_some_queues_then_it_shows_those_without_a_stream(
    open_page: OpenPage, guarded: Served
) -> None:
    page = await open_page(base=guarded.url)
    await sign_in(page, "clerk")
    await expect(page.locator(".link.live")).to_be_visible()
    await expect(page.locator("td .strong")).to_have_text(["echo"])
    await page.locator("form.send").get_by_role("button", name="Send").click()
    await expect(page.locator("form.send output .badge")).to_have_text("done")
