"""Who is it, what did he undertake, does he still look, and who ended it: the portal in a real Chromium."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from playwright.async_api import Page, Request, Route, WebSocketRoute, expect
from support.browser import open_page
from support.portal_pages import (
    ENDED_TIMEOUT_MS,
    LIVE_TIMEOUT_MS,
    call,
    declare_purpose,
    name_of,
    operator_of,
    sign_in,
    watch_button,
    watched_session,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.xdist_group("demo"),
    pytest.mark.asyncio(loop_scope="module"),
]

PHONE = (390, 844)


async def open_account(page: Page) -> None:
    await page.get_by_role("button", name=re.compile("your account$")).click()
    await expect(page.locator("#account-heading")).to_be_visible()


async def is_live(page: Page) -> None:
    await expect(page.locator("[data-part=phase].live")).to_be_visible(timeout=LIVE_TIMEOUT_MS)


async def watch(page: Page, demo, camera_id: str) -> None:
    await declare_purpose(page, watch_button(page, name_of(demo, camera_id)))
    await is_live(page)


def is_opening(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/api/v1/sessions")


async def changing(page: Page, path: str, change: dict) -> None:
    """Answers of an address with some of their fields changed."""

    async def handle(route: Route) -> None:
        response = await route.fetch()
        answer = await response.json()
        await route.fulfill(response=response, json=answer | change if response.ok else answer)

    await page.route(f"**/api/v1{path}", handle)


async def refuse_once(page: Page, path: str, code: str, status: int = 403) -> None:
    problem = {"type": "about:blank", "title": code, "status": status, "code": code}
    await page.route(
        f"**/api/v1{path}",
        lambda route: route.fulfill(
            status=status, content_type="application/problem+json", body=json.dumps(problem)
        ),
        times=1,
    )


async def test_a_second_factor_is_set_up_asked_for_and_taken_away(page, demo):
    username = "urban-operator"
    await sign_in(page, demo, username)
    await open_account(page)
    part = page.locator("[data-part=second-factor]")
    await expect(part).to_contain_text("Your password alone opens this account")
    await part.get_by_role("button", name="Set up").click()
    await expect(page.locator("[data-part=qr]")).to_have_js_property("complete", value=True)
    assert await page.locator("[data-part=qr]").evaluate("image => image.naturalWidth") > 0
    secret = (await page.locator("[data-part=secret]").inner_text()).replace(" ", "")
    await expect(page.locator("#factor-code")).to_be_focused()
    await page.keyboard.type("not a code")
    await page.keyboard.press("Enter")
    await expect(part.get_by_role("alert")).to_contain_text("The code is wrong")
    await page.locator("#factor-code").fill(pyotp.TOTP(secret).now())
    await page.keyboard.press("Enter")
    shown = page.locator("[data-part=recovery-codes] li")
    await expect(shown).to_have_count(10)
    codes = await shown.all_inner_texts()
    async with page.expect_download() as download:
        await part.get_by_role("button", name="Save as a file").click()
    saved = await (await download.value).path()
    assert saved.read_text().split() == codes
    await part.get_by_role("button", name="I have kept them").click()
    await expect(part).to_contain_text("Each login asks for a code")
    for code in codes:
        assert code not in await page.content()

    await page.get_by_role("button", name="Sign out").click()
    await page.locator("#username").fill(username)
    await page.locator("#password").fill(demo.accounts[username][0])
    await page.keyboard.press("Enter")
    field = page.locator("#totp")
    await expect(field).to_be_focused()
    await expect(field).to_have_attribute("autocomplete", "one-time-code")
    await page.keyboard.type("000000")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("wrong or was used already")
    await expect(field).to_be_focused()
    await page.keyboard.type(codes[0].upper())
    await page.keyboard.press("Enter")
    await expect(page.locator("#cameras-heading")).to_be_visible()

    await open_account(page)
    await part.get_by_role("button", name="Take away").click()
    await page.locator("#factor-code").fill(codes[1])
    await page.keyboard.press("Enter")
    await expect(part).to_contain_text("Your password alone opens this account")


async def test_who_must_have_a_second_factor_sees_only_where_to_set_it_up(page, demo):
    await sign_in(page, demo)
    await refuse_once(page, "/cameras?*", "second_factor_enrolment_required")
    await changing(page, "/me", {"must_enrol": True})
    await page.locator("input[inputmode=search]").fill("K12")
    await expect(page.locator("[data-part=must-enrol]")).to_contain_text("Set up a second factor first")
    await expect(page.locator("[data-part=secret]")).to_be_visible()
    await expect(page.get_by_role("navigation")).to_have_count(0)
    await expect(page.locator("[data-part=camera]")).to_have_count(0)
    await page.reload()
    await expect(page.locator("[data-part=must-enrol]")).to_be_visible()


async def test_no_picture_before_the_undertaking(page, demo):
    """An account of the demonstration has accepted it: the gateway's word is changed to no."""
    await changing(page, "/me", {"undertaking": {"version": 1, "accepted": False}})
    await page.goto(demo.url)
    await sign_in(page, demo)
    await page.reload()
    await expect(page.locator("[data-part=camera]").first).to_be_visible()
    button = watch_button(page, name_of(demo, "highway"))
    await button.click()
    undertaking = page.locator("[data-part=undertaking]")
    await expect(undertaking).to_contain_text("Whoever uses this system is responsible for it.")
    await page.get_by_role("button", name="Later").click()
    await expect(undertaking).to_be_hidden()
    await expect(page.locator("#purpose-code")).to_have_count(0)

    await button.click()
    async with page.expect_request(lambda request: request.url.endswith("/undertaking/accept")) as accepted:
        await page.get_by_role("button", name="I undertake this").click()
    assert (await accepted.value).post_data_json == {"version": 1}
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("combobox")).to_be_focused()
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_be_hidden()

    # a newer one comes while the page is open
    await refuse_once(page, "/sessions", "undertaking_required")
    await declare_purpose(page, button)
    await expect(undertaking).to_be_visible()
    await page.get_by_role("button", name="I undertake this").click()
    await is_live(page)


async def test_purposes_are_those_that_the_cameras_department_allows(browser, page, demo):
    async with open_page(browser) as office:
        await sign_in(office, demo, "traffic-admin")
        camera = (await call(office, "GET", "/cameras/highway"))[1]["camera"]
        terms = {**camera["sharing"], "purposes": ["case", "maintenance"]}
        assert (await call(office, "PATCH", "/cameras/highway", {"sharing": terms}))[0] == 200
        try:
            await sign_in(page, demo)
            await watch_button(page, name_of(demo, "highway")).click()
            withheld = page.locator("[data-part=withheld]")
            await expect(withheld).to_contain_text("does not allow for this camera")
            await expect(withheld).to_contain_text("Routine patrol")
            await expect(page.get_by_role("dialog").get_by_role("combobox")).to_be_focused()
            await page.keyboard.press("Enter")
            options = page.get_by_role("option")
            await expect(options).to_have_text(["Case work", "Equipment maintenance"])
            await options.first.click()
            await page.locator(".el-dialog button[type=submit]").click()
            await expect(page.get_by_text("This purpose needs a reference.")).to_be_visible()
        finally:
            await call(office, "PATCH", "/cameras/highway", {"sharing": camera["sharing"]})


async def test_a_picture_asks_whether_somebody_still_looks_and_goes_on_if_so(page, demo):
    soon = (datetime.now(UTC) + timedelta(seconds=100)).isoformat()
    await changing(page, "/sessions", {"confirm_by": soon})
    await sign_in(page, demo)
    await watch(page, demo, "highway")
    question = page.locator("[data-part=confirm]")
    await expect(question).to_contain_text(re.compile(r"Are you still watching\?.*ends in 1:\d\d"))
    picture, bar = await page.locator("video").bounding_box(), await question.bounding_box()
    assert picture
    assert bar
    assert bar["y"] >= picture["y"] + picture["height"] - 1
    answered = page.expect_response(lambda response: response.url.endswith("/confirm"))
    async with answered as response:
        await question.get_by_role("button").focus()
        await page.keyboard.press("Enter")
    confirm_by = datetime.fromisoformat((await (await response.value).json())["confirm_by"])
    assert confirm_by - datetime.now(UTC) > timedelta(minutes=20)
    await expect(question).to_have_count(0)
    await is_live(page)


async def test_a_login_elsewhere_ends_the_picture_and_says_why(browser, page, demo):
    username, _ = operator_of(demo)
    await sign_in(page, demo, username)
    await watch(page, demo, "highway")
    async with open_page(browser) as other:
        await sign_in(other, demo, username)
        told = page.locator("[data-part=login-lost]")
        await expect(told).to_contain_text("signed in elsewhere", timeout=ENDED_TIMEOUT_MS)
        await expect(page.locator("video")).to_have_count(0)
        # whoever comes back to a login that is over is told as well
        await page.reload()
        await expect(told).to_contain_text("signed in elsewhere")


async def test_a_reconnect_that_is_refused_says_who_ended_the_session(browser, page, demo):
    connections: list[WebSocketRoute] = []

    def relay(connection: WebSocketRoute) -> None:
        connection.connect_to_server()
        connections.append(connection)

    ended = asyncio.Event()

    async def late(route: Route) -> None:
        await ended.wait()
        await route.continue_()

    await page.route_web_socket(re.compile(r"/media/.*/ws"), relay)
    await page.route("**/api/v1/sessions/*/ticket", late)
    await sign_in(page, demo)
    await watch(page, demo, "highway")
    session = await watched_session(page)
    async with open_page(browser) as office:
        await sign_in(office, demo, "traffic-admin")
        await connections[-1].close(code=1011)
        await expect(page.locator("[data-part=phase]")).to_have_text("Reconnecting")
        assert (await call(office, "DELETE", f"/sessions/{session}"))[0] == 204
        ended.set()
    await expect(page.locator("[data-part=ending]")).to_have_text(
        "An administrator ended the session.", timeout=ENDED_TIMEOUT_MS
    )
    department = demo.accounts["traffic-admin"][2]
    await expect(page.locator("[data-part=ended-by]")).to_have_text(f"Ended by {department}.")


async def test_a_tour_is_one_session_after_another_and_skips_what_fails(page, demo):
    opened: list[str] = []
    page.on(
        "request", lambda request: is_opening(request) and opened.append(request.post_data_json["camera"])
    )
    await sign_in(page, demo)
    await page.get_by_role("button", name="Tour…").click()
    start = page.get_by_role("button", name="Start a tour")
    await expect(start).to_be_disabled()
    for camera_id in ("highway", "crossroads-day"):
        await page.get_by_label(f"On the tour: {name_of(demo, camera_id)}", exact=True).check()
    await start.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("combobox")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.get_by_role("option", name="Routine patrol").click()
    await dialog.locator("#purpose-reference").fill("ROSTER-7")
    await dialog.locator("#tour-dwell").fill("120")
    await dialog.get_by_role("button", name="Start the tour").click()

    step = page.locator("[data-part=tour-step]")
    await expect(step).to_have_text(f"1 of 2: {name_of(demo, 'highway')}")
    await is_live(page)
    first = await watched_session(page)
    await page.get_by_role("button", name="Next", exact=True).click()
    await expect(step).to_have_text(f"2 of 2: {name_of(demo, 'crossroads-day')}")
    await is_live(page)
    assert await watched_session(page) != first
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("[data-part=tour]")).to_contain_text("paused")
    await expect(page.get_by_role("button", name="Go on")).to_be_focused()

    await refuse_once(page, "/sessions", "camera_disabled", 409)
    await page.get_by_role("button", name="Next", exact=True).click()
    skipped = page.locator("[data-part=tour-skipped]")
    await expect(skipped).to_contain_text(f"Skipped {name_of(demo, 'highway')}: The camera is switched off")
    await page.get_by_role("button", name="Go on").click()
    await expect(step).to_have_text(f"2 of 2: {name_of(demo, 'crossroads-day')}", timeout=LIVE_TIMEOUT_MS)
    await is_live(page)
    assert opened == ["highway", "crossroads-day", "highway", "crossroads-day"]
    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(page.locator("#cameras-heading")).to_be_visible()


async def test_a_phone_shows_account_and_tour_without_scrolling_sideways(browser, demo):
    async with open_page(browser, locale="zh-CN", width=PHONE[0], height=PHONE[1]) as page:
        await sign_in(page, demo)
        await page.get_by_role("button", name="轮巡…").click()
        widths = [await page.evaluate("document.scrollingElement.scrollWidth")]
        await page.get_by_role("button", name=re.compile("我的账号$")).click()
        await page.get_by_role("button", name="设置").click()
        await expect(page.locator("[data-part=secret]")).to_be_visible()
        widths.append(await page.evaluate("document.scrollingElement.scrollWidth"))
        assert widths == [PHONE[0], PHONE[0]]
