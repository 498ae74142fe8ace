"""What one does with queues and messages on the dashboard."""

import json
import re
import subprocess

import pytest
from playwright.async_api import Page, expect

from tests.processes import Served
from tests.web.conftest import OpenPage

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def send(page: Page, served: Served, queue: str, body: object, query: str = "") -> str:
    """Send as anybody may; returns the id."""
    path = f"{served.url}/v1/queues/{queue}/messages{query}"
    answer = await page.request.post(path, data=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.ok, await answer.text()
    return (await answer.json()).get("id")


async def view(page: Page, served: Served, queue: str, suffix: str = "") -> dict:
    answer = await page.request.get(f"{served.url}/v1/queues/{queue}{suffix}")
    return await answer.json()


async def dead(page: Page, served: Served, count: int = 1) -> list[str]:
    """Leave dead letters in `mails`; returns their ids."""
    return [await send(page, served, "mails", {"cc": str(n)}, "?wait=10") for n in range(count)]


async def confirm(page: Page, name: str, verb: str) -> None:
    """Type the queue's name into what is asked, and go on."""
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name=verb)).to_be_disabled()
    await dialog.get_by_role("textbox").fill(name)
    await dialog.get_by_role("button", name=verb).click()


def toast(page: Page):
    return page.locator(".toast.shown")


async def test_message_when_sent_from_the_page_then_its_result_arrives_and_its_own_page_opens(
    open_page: OpenPage,
) -> None:
    page = await open_page()
    form = page.locator("form.send")
    await form.get_by_label("Body").fill('{"answer": 12345678901234567890}')
    await form.get_by_role("button", name="Send").click()

    await expect(form.locator("output .badge")).to_have_text("done")
    await expect(form.locator("output pre")).to_contain_text("12345678901234567890")  # to the last digit
    await form.locator("output a").click()
    await expect(page.locator(".title .badge")).to_have_text("done")
    await expect(page.locator("pre.value").first).to_contain_text("12345678901234567890")
    await expect(page.locator(".timeline li")).to_have_count(3)


async def test_curl_line_when_run_in_a_shell_then_it_does_what_the_button_does(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page("#/queues/echo")
    for body in ('{"it": "isn\'t"}', "@it isn't JSON\n"):
        await page.get_by_label("Body").fill(body)
        line = await page.locator("form.send pre").inner_text()
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=10, check=True)
        sent = await view(page, served, "echo", f"/messages/{json.loads(done.stdout)['id']}?wait=5")
        assert sent["result"] == (json.loads(body) if body.startswith("{") else body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", '{"a": [1, "ü\'s", null, 12345678901234567890]}'.encode()),
        ("text/csv", b"@a,b\n1,'2'"),
        ("image/png", b"\x89PNG\x00\xff"),
    ],
)
async def test_message_when_copied_as_curl_then_the_line_sends_the_same_body(
    open_page: OpenPage, served: Served, kind: str, body: bytes
) -> None:
    page = await open_page(permissions=["clipboard-read", "clipboard-write"])
    path = f"{served.url}/v1/queues/echo/messages"
    id_ = (await (await page.request.post(path, data=body, headers={"Content-Type": kind})).json())["id"]
    await page.goto(f"{served.url}/dashboard#/queues/echo/messages/{id_}")
    await page.get_by_role("button", name="Copy as curl").click()

    await expect(toast(page)).to_have_text("Copied")
    line = await page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=10, check=True)
    sent, copy = [
        await view(page, served, "echo", f"/messages/{each}?wait=5") for each in (id_, json.loads(done.stdout)["id"])
    ]
    assert copy["body"] == sent["body"]
    assert copy.get("content_type") == sent.get("content_type")


async def test_queue_when_paused_and_resumed_then_it_is_and_messages_wait_meanwhile(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page()
    row = page.locator("tr", has=page.get_by_role("link", name="echo", exact=True)).first
    await row.get_by_role("button", name="Pause").click()
    await expect(row.locator(".badge")).to_have_text("paused")
    assert (await view(page, served, "echo"))["paused"]
    id_ = await send(page, served, "echo", 1)

    await expect(row.locator("td").nth(2)).to_have_text("1")
    await row.get_by_role("button", name="Resume").click()
    await expect(row.locator(".badge")).to_have_text("running")
    assert (await view(page, served, "echo", f"/messages/{id_}?wait=5"))["state"] == "done"


async def test_dead_letter_when_replayed_then_it_is_tried_again_and_its_attempts_are_a_timeline(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page()
    (id_,) = await dead(page, served)
    await page.goto(f"{served.url}/dashboard#/queues/mails/messages/{id_}")

    await expect(page.locator(".timeline li.red b")).to_have_text(["ValueError", "ValueError"])
    await page.locator(".timeline details").first.locator("summary").click()
    await expect(page.locator(".timeline details pre").first).to_contain_text("nobody to send it to")
    await page.get_by_role("button", name="Replay").click()
    await expect(toast(page)).to_have_text("Replayed: 1")
    await expect(page.locator(".timeline li.red b")).to_have_count(4)  # two more, that failed again


async def test_dead_letters_when_all_are_replayed_then_it_asks_for_the_name_and_says_how_many(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page("#/queues/mails?state=dead")
    await page.request.delete(f"{served.url}/v1/queues/mails/messages?state=dead")
    await dead(page, served, 2)
    await page.get_by_role("button", name="Replay…: mails").click()
    await expect(page.get_by_role("dialog")).to_contain_text("each with all its attempts: 2.")
    await page.get_by_role("dialog").get_by_role("textbox").fill("mail")
    await expect(page.get_by_role("dialog").get_by_role("button", name="Replay 2")).to_be_disabled()
    await page.get_by_role("dialog").get_by_role("textbox").fill("")
    await confirm(page, "mails", "Replay 2")

    await expect(toast(page)).to_have_text("Replayed: 2")


async def test_queue_when_purged_then_it_asks_for_state_and_name_and_escape_goes_back(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page("#/queues/echo?state=scheduled")
    for n in range(3):
        await send(page, served, "echo", n, "?delay=1h")
    purge = page.get_by_role("button", name="Purge")
    await purge.click()
    await expect(page.get_by_role("dialog")).to_contain_text("to be deleted (scheduled): 3.")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await purge.click()
    await confirm(page, "echo", "Delete 3")

    await expect(toast(page)).to_have_text("Deleted: 3")
    assert (await view(page, served, "echo"))["counts"]["scheduled"] == 0
    await expect(page.locator(".card").filter(has_text="Nothing is scheduled")).to_be_visible()


async def test_queue_when_deleted_then_it_asks_for_the_name_and_only_without_consumers(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page("#/queues/echo")
    delete = page.get_by_role("button", name="Delete queue")
    await expect(delete).to_be_disabled()
    for n in range(2):
        await send(page, served, "orphan", n)
    await page.goto(f"{served.url}/dashboard#/queues/orphan")
    await delete.click()
    await expect(page.get_by_role("dialog")).to_contain_text("All its messages go with it (2)")
    await confirm(page, "orphan", "Delete the queue")

    await expect(toast(page)).to_have_text("Deleted orphan with all its messages: 2")
    await expect(page.get_by_role("link", name="orphan")).to_have_count(0)


async def test_running_message_when_cancelled_then_its_progress_was_seen_and_it_is_cancelled(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page()
    id_ = await send(page, served, "reports", 4)
    await page.goto(f"{served.url}/dashboard#/queues/reports/messages/{id_}")
    await expect(page.locator(".progress")).to_contain_text("25 % page 1 of 4")
    await page.get_by_role("button", name="Cancel").click()

    await expect(page.locator(".title .badge")).to_have_text("cancelled")


async def test_lists_when_there_are_many_messages_then_one_turns_pages_and_finds_one_by_its_id(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page()
    items = [{"body": n, "delay": "1h", "id": f"order-{n:02}"} for n in range(60)]
    answer = await page.request.post(f"{served.url}/v1/queues/sleep/messages/batch", data=items)
    assert answer.ok
    await page.goto(f"{served.url}/dashboard#/queues/sleep?state=scheduled")
    pager = page.locator(".pager")
    await expect(pager).to_contain_text("1–25")
    first = await page.locator("tbody a").first.inner_text()
    await pager.get_by_role("button", name="Next").click()
    await expect(pager).to_contain_text("26–50")
    await pager.get_by_role("button", name="Next").click()
    await expect(pager).to_contain_text("51–60")
    await expect(pager.get_by_role("button", name="Next")).to_be_disabled()
    await pager.get_by_role("button", name="Previous").click()
    await pager.get_by_role("button", name="Previous").click()
    await expect(page.locator("tbody a").first).to_have_text(first)

    await page.get_by_role("link", name="Messages", exact=True).click()
    await page.get_by_label("Message id").fill(" order-07 ")
    await page.get_by_role("button", name="Find").click()
    await expect(page.locator("h1")).to_have_text("order-07")
    await page.goto(f"{served.url}/dashboard#/messages?id=order-99")
    await expect(page.get_by_text("No message order-99 is kept.")).to_be_visible()


async def test_channel_when_tailed_then_what_is_published_appears_within_the_one_stream(
    open_page: OpenPage, served: Served
) -> None:
    page = await open_page("#/channels/prices.eur")
    await expect(page.locator(".link.live")).to_be_visible()
    form = page.locator("form.send")
    await form.get_by_label("Body").fill("1.07")
    await form.get_by_role("button", name="Publish").click()

    await expect(form.locator("output")).to_contain_text("Received by 1")
    await expect(page.locator(".lines p")).to_contain_text(["1.07"])
    assert (
        await page.evaluate("performance.getEntriesByType('resource').filter(e => /v1.events$/.test(e.name)).length")
        <= 1
    )


async def test_schedule_when_there_is_one_then_its_next_times_are_shown(open_page: OpenPage, served: Served) -> None:
    page = await open_page()
    schedule = {"queue": "echo", "cron": "0 3 * * *", "tz": "Asia/Shanghai", "body": {"a": 1}}
    await page.request.put(f"{served.url}/v1/schedules/nightly", data=schedule)
    await page.goto(f"{served.url}/dashboard#/schedules")
    row = page.locator("tr", has_text="nightly")

    await expect(row).to_contain_text(re.compile(r"in \d+ (h|min|s)"))
    await expect(row.locator("ul li")).to_have_count(4)
