"""A browser, a service to look at, and pages that may neither complain nor ask anybody else."""

import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from mqservice.embedded import EmbeddedServer
from tests.processes import ROOT, Served, serving

SCREENSHOTS = ROOT / "tests/screenshots"
_NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
_MISSING = f"no Chromium: none of {', '.join(_NAMES)} is installed (Debian: apt install chromium-headless-shell)"
_EXPECTED = re.compile(r"Failed to load resource: .*\b(401|404|409|503)\b")
"""What the browser itself says of an answer that the page deals with."""

OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the system's Chromium; without one the tests are skipped, and fail where CI is set."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(_MISSING)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """One browser for all tests of this process."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium)
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
def served(chromium: str, server: EmbeddedServer) -> Iterator[Served]:
    """A running service with the queues prodcons, echo, sleep, mails and reports."""
    url = server.url(5)
    with redis.Redis.from_url(url) as client:
        client.flushall()
    with serving(url, "--app", "tests.web.app:service") as running:
        yield running.started()


@pytest.fixture(scope="module")
def other_url(server: EmbeddedServer) -> str:
    """The URL of an empty database that is not the one of `served`."""
    url = server.url(6)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, served: Served, request: pytest.FixtureRequest) -> AsyncIterator[OpenPage]:
    """Return `open_page(route, base=, ends=, **context)`: the dashboard as a new visitor.

    At the end no page has complained; `ends`: but of a service that the test ends meanwhile.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    async def open_page(route: str = "", base: str = served.url, ends: bool = False, **options: Any) -> Page:
        def heard(message: ConsoleMessage) -> None:
            expected = _EXPECTED.match(message.text) or (ends and "net::ERR_" in message.text)
            if message.type in ("error", "warning") and not expected:
                complaints.append(message.text)

        context = await browser.new_context(
            **{"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options}
        )
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = await context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith((base, "data:")) or complaints.append(asked.url))
        await page.goto(f"{base}/dashboard{route}")
        await page.locator("main h1").wait_for(state="attached")
        return page

    yield open_page
    for number, context in enumerate(contexts):
        for page in context.pages:
            await shoot(page, f"{request.node.name}-{number}")
        await context.close()
    assert complaints == []


async def shoot(page: Page, name: str) -> None:
    """Keep what the page looks like, for people to look at."""
    path = SCREENSHOTS / f"{re.sub('[^a-z0-9]+', '-', name.lower())[:120]}.png"
    await page.screenshot(path=path, full_page=True)
