"""The portal in a real Chromium, against a running gateway with its demo's cameras.

`demo` (tests/e2e/conftest.py) has `url`, `accounts` {username: (password, role, department)} and `cameras`,
a list of {"id", "name", "department"}: every camera of the installation.
"""

import asyncio
import base64
import json
import re
from collections.abc import Callable

import pytest
from playwright.async_api import Page, Response, Route, WebSocketRoute, expect
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
HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "{{ constructor.constructor('document.title = 1')() }}",
    "@:common.retry | {name} 人民路 \"东\" 'O''Brien', 3号",
)


async def watch(page: Page) -> str:
    """Watches the first camera that the first purpose allows and this browser decodes; returns its name."""
    live = page.locator("[data-part=phase].live")
    ending = page.locator("[data-part=ending]")
    refusal = page.get_by_role("dialog").get_by_role("alert")
    for name in await page.locator(".camera-name").all_inner_texts():
        await declare_purpose(page, watch_button(page, name))
        await expect(live.or_(ending).or_(refusal)).to_be_visible(timeout=LIVE_TIMEOUT_MS)
        if await live.is_visible():
            return name
        if await refusal.is_visible():
            await expect(refusal).to_have_text("Your grant does not cover this purpose.")
            await page.keyboard.press("Escape")
            await expect(page.get_by_role("dialog")).to_be_hidden()
        else:
            await expect(ending).to_contain_text("cannot decode H.265")
            await page.go_back()
            await expect(page.locator("[data-part=camera]").first).to_be_visible()
    pytest.fail("no camera plays in this browser")


def is_session_end(response: Response) -> bool:
    return response.request.method == "DELETE" and "/api/v1/sessions/" in response.url


async def eventually(condition: Callable, *, seconds: float = 5.0) -> None:
    """Waits for what happens at the gateway, where the page offers no event to wait on."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def until_true(page: Page, script: str, argument: object = None) -> None:
    """Not Playwright's own way, which evaluates a string in the page: its security policy forbids that."""

    async def is_true() -> bool:
        return bool(await page.evaluate(script, argument))

    await eventually(is_true)


async def test_an_operator_sees_the_granted_cameras_and_no_others(page, demo):
    await sign_in(page, demo)
    shown = await page.locator(".camera-name").all_inner_texts()
    answer = await page.request.get(f"{demo.url.rstrip('/')}/api/v1/cameras?page_size=50")
    assert shown == [camera["name"] for camera in (await answer.json())["items"]]
    every = {camera["name"] for camera in demo.cameras}
    assert shown
    assert set(shown) < every


async def test_a_wrong_password_is_answered_in_words(page, demo):
    username, _ = operator_of(demo)
    await page.goto(demo.url)
    await page.get_by_label("User name").fill(username)
    await page.get_by_label("Password").fill("not the password")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("User name or password is wrong.")
    await expect(page.get_by_label("Password")).to_be_focused()
    await expect(page.get_by_label("Password")).to_have_value("")


async def test_no_picture_without_a_purpose(page, demo):
    await sign_in(page, demo)
    await page.get_by_role("button", name="Watch ").first.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Whoever uses it is responsible.")
    await dialog.get_by_role("button", name="Start watching").click()
    await expect(dialog).to_contain_text("Choose a purpose.")
    await expect(page.locator("video")).to_have_count(0)


async def test_the_picture_is_live_and_names_its_viewer_until_it_is_ended(page, demo):
    await sign_in(page, demo)
    await watch(page)
    pixels = """() => {
        const video = document.querySelector('video')
        const canvas = document.createElement('canvas')
        canvas.width = 160, canvas.height = 90
        const context = canvas.getContext('2d')
        context.drawImage(video, 0, 0, canvas.width, canvas.height)
        return [video.currentTime, Array.from(context.getImageData(0, 0, 160, 90).data).join()]
    }"""
    time, picture = await page.evaluate(pixels)
    await until_true(page, "from => document.querySelector('video').currentTime > from + 1", time)
    _, later = await page.evaluate(pixels)
    assert picture != later

    me = await (await page.request.get(f"{demo.url.rstrip('/')}/api/v1/me")).json()
    watermark = page.locator("[data-part=watermark]")
    await expect(watermark).to_contain_text(me["display_name"])
    await expect(watermark).to_contain_text(me["department"]["name"])

    async with page.expect_response(is_session_end) as ended:
        await page.get_by_role("button", name="End", exact=True).click()
    assert (await ended.value).status == 204
    await expect(page.locator("[data-part=ending]")).to_have_text("You ended the session.")
    await expect(watermark).to_have_count(0)


async def test_a_session_ended_elsewhere_says_so(page, demo):
    await sign_in(page, demo)
    await watch(page)
    session = await watched_session(page)
    await page.evaluate("id => fetch(`/api/v1/sessions/${id}`, {method: 'DELETE'})", session)
    await expect(page.locator("[data-part=ending]")).to_contain_text(
        "ended from another window", timeout=ENDED_TIMEOUT_MS
    )


async def test_leaving_the_page_ends_the_session(page, demo):
    await sign_in(page, demo)
    await watch(page)
    session = await watched_session(page)
    other = await page.context.new_page()
    await other.goto(demo.url)
    await page.goto("about:blank")

    async def is_over() -> bool:
        ask = "id => fetch(`/api/v1/sessions/${id}/ticket`, {method: 'POST'}).then(answer => answer.status)"
        return await other.evaluate(ask, session) in {404, 409, 410}

    await eventually(is_over)


async def test_a_lost_connection_comes_back_with_a_new_ticket(page, demo):
    connections: list[WebSocketRoute] = []

    def relay(connection: WebSocketRoute) -> None:
        connection.connect_to_server()
        connections.append(connection)

    await page.route_web_socket(re.compile(r"/media/.*/ws"), relay)
    await sign_in(page, demo)
    await watch(page)
    session = await watched_session(page)
    opened = len(connections)
    await connections[-1].close(code=1011)
    phase = page.locator("[data-part=phase]")
    await expect(phase).to_have_text("Reconnecting")
    await expect(phase).to_have_text("Live", timeout=LIVE_TIMEOUT_MS)
    assert len(connections) == opened + 1
    assert connections[-1].url != connections[-2].url
    assert await watched_session(page) == session


async def test_the_language_is_the_browsers_until_one_is_chosen(browser, demo):
    async with open_page(browser, locale="zh-CN") as page:
        await page.goto(demo.url)
        await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        await expect(page.get_by_role("heading")).to_have_text("登录")
        await expect(page.get_by_text("谁使用，谁负责")).to_be_visible()
        await page.get_by_role("button", name="English").click()
        await expect(page.get_by_role("heading")).to_have_text("Sign in")
        await page.reload()
        await expect(page.get_by_role("heading")).to_have_text("Sign in")
        await expect(page.locator("html")).to_have_attribute("lang", "en")


async def test_a_phone_shows_everything_without_scrolling_sideways(browser, demo):
    async with open_page(browser, width=PHONE[0], height=PHONE[1]) as page:

        async def width() -> int:
            return await page.evaluate("document.scrollingElement.scrollWidth")

        await sign_in(page, demo)
        assert await width() == PHONE[0]
        await watch(page)
        assert await width() == PHONE[0]


async def test_names_are_text_wherever_they_appear(page, demo):
    """The gateway's own policy headers, with answers that no honest department would give."""

    async def poison(route: Route) -> None:
        response = await route.fetch()
        answer = await response.json()
        camera = answer["items"][0]
        answer["items"] = [
            camera
            | {"id": str(index), "name": name, "description": name}
            | {"department": {"id": "1", "name": name}, "status": {"state": "failed", "error": name}}
            for index, name in enumerate(HOSTILE)
        ]
        await route.fulfill(response=response, json=answer)

    async def refuse(route: Route) -> None:
        text = HOSTILE[int(route.request.post_data_json["camera"])]
        problem = {"type": "about:blank", "title": text, "status": 403, "detail": text, "code": text}
        await route.fulfill(status=403, content_type="application/problem+json", body=json.dumps(problem))

    await page.route("**/api/v1/cameras?*", poison)
    await page.route("**/api/v1/sessions", refuse)
    await sign_in(page, demo)
    for part in (".camera-name", ".description", ".department", ".state .error"):
        await expect(page.locator(part)).to_have_text(HOSTILE)
    for index, name in enumerate(HOSTILE):
        await declare_purpose(page, page.locator("[data-part=camera] .action button").nth(index))
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text(name)
        await expect(dialog.get_by_role("alert")).to_contain_text(f"{name}: {name}")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
    assert await page.title() == "Custos"


async def test_a_fault_is_marked_and_named(page, demo):
    """A simulated camera of the demonstration has no faults: the answer is given some."""

    async def spoil(route: Route) -> None:
        response = await route.fetch()
        answer = await response.json()
        for camera, fault in zip(answer["items"], ("frozen", "timestamp_jump", "packet_loss"), strict=False):
            camera["status"] |= {"state": "live", "fault": fault, "lost_packets": 17}
        await route.fulfill(response=response, json=answer)

    await page.route("**/api/v1/cameras?*", spoil)
    await sign_in(page, demo)
    await expect(page.locator("[data-part=fault]")).to_have_text(
        [
            "The picture is frozen",
            "The camera’s clock jumped",
            "Parts of the picture are lost or damaged",
        ]
    )
    await expect(page.get_by_text("17 packets lost")).to_have_count(1)


async def test_who_waits_gets_the_place_that_comes_free(page, demo):
    await sign_in(page, demo)
    mine: list[str] = []
    while True:
        status, answer = await call(
            page,
            "POST",
            "/sessions",
            {"camera": "highway", "purpose": {"code": "patrol", "reference": "roster"}},
        )
        if status != 201:
            break
        mine.append(answer["id"])
    assert answer["code"] == "limit_sessions_user"

    await declare_purpose(page, watch_button(page, name_of(demo, "crossroads-day")))
    dialog = page.get_by_role("dialog")
    waiting = page.locator("[data-part=waiting]")
    await expect(dialog.get_by_role("alert")).to_contain_text("as many cameras as you may at once")
    await dialog.get_by_role("button", name="Wait up to a minute").click()
    await expect(waiting).to_contain_text(re.compile(r"5\d seconds left"))
    async with page.expect_event("requestfailed", lambda request: request.url.endswith("/sessions")):
        await dialog.get_by_role("button", name="Stop waiting").click()
    await expect(waiting).to_be_hidden()

    await dialog.get_by_role("button", name="Start watching").click()
    await dialog.get_by_role("button", name="Wait up to a minute").click()
    await expect(waiting).to_be_visible()
    for session in mine:
        await call(page, "DELETE", f"/sessions/{session}")
    await expect(page.locator("[data-part=phase].live")).to_be_visible(timeout=LIVE_TIMEOUT_MS)


async def test_an_administrator_sees_who_watches_which_stream_and_may_end_it(browser, page, demo):
    await sign_in(page, demo)
    await watch_button(page, name_of(demo, "highway")).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("combobox")).to_be_focused()
    await expect(dialog.get_by_label("Sub stream")).to_have_count(0)
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_be_hidden()
    name = name_of(demo, "crossroads-day")
    await declare_purpose(page, watch_button(page, name), "Sub stream")
    await expect(page.locator("[data-part=phase].live")).to_be_visible(timeout=LIVE_TIMEOUT_MS)
    await expect(page.locator("[data-part=stream]")).to_have_text("Sub stream")

    viewer = (await call(page, "GET", "/me"))[1]["display_name"]
    async with open_page(browser) as office:
        await sign_in(office, demo, "traffic-admin")
        await office.get_by_role("button", name="Sessions").click()
        row = office.locator("[data-part=viewer-session]", has_text="Sub stream")
        await expect(row).to_have_count(1)
        for text in (viewer, name, "Web page", "Watching", "50"):
            await expect(row).to_contain_text(text)
        await row.get_by_role("button", name="End").click()
        await expect(row).to_have_count(0)
    await expect(page.locator("[data-part=ending]")).to_have_text(
        "An administrator ended the session.", timeout=ENDED_TIMEOUT_MS
    )


async def test_a_picture_with_sound_moves_to_another_player_by_an_address_that_opens_once(page, demo):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await sign_in(page, demo)
    await declare_purpose(page, watch_button(page, name_of(demo, "highway")))
    await expect(page.locator("[data-part=phase].live")).to_be_visible(timeout=LIVE_TIMEOUT_MS)
    assert await page.evaluate("document.querySelector('video').muted")
    await page.get_by_role("button", name="Sound on").click()
    await expect(page.get_by_role("button", name="Sound off")).to_be_visible()
    await until_true(
        page,
        "() => [...document.querySelectorAll('video')]"
        ".some(video => !video.muted && video.webkitAudioDecodedByteCount > 0)",
    )

    session = await watched_session(page)
    outside = page.locator("[data-part=outside]")
    await outside.get_by_text("Watch in another player").click()
    await expect(outside).to_contain_text("recorded under your name")
    await outside.get_by_role("button", name="Copy FLV").click()
    await expect(outside).to_contain_text("Copied.")
    await expect(page.locator("[data-part=ending]")).to_contain_text("opens the copied address")
    address = await page.evaluate("navigator.clipboard.readText()")
    assert f"/media/{session}/live.flv?ticket=" in address
    ticket = address.partition("ticket=")[2]
    assert ticket not in await page.content()
    assert ticket not in await page.evaluate("location.href + JSON.stringify(history.state)")

    open_it = """async address => {
        const stop = new AbortController()
        const answer = await fetch(address, {signal: stop.signal})
        const {value} = await answer.body.getReader().read()
        stop.abort()
        return [answer.status, String.fromCharCode(...value.slice(0, 3))]
    }"""
    assert await page.evaluate(open_it, address) == [200, "FLV"]
    assert (await page.evaluate(open_it, address))[0] == 403


async def test_the_picture_goes_on_when_the_tracks_change_and_a_place_given_away_is_named(page, demo):
    """What the gateway sends of a camera with sound, after the pictures of one without."""
    await sign_in(page, demo)
    other = await page.context.new_page()
    await other.goto(demo.url)
    _, opened = await call(
        other,
        "POST",
        "/sessions",
        {"camera": "highway", "purpose": {"code": "patrol", "reference": "roster"}},
    )
    recorded = await other.evaluate(
        """address => new Promise(resolve => {
            const messages = [], socket = new WebSocket(address)
            const text = bytes => btoa(String.fromCharCode(...new Uint8Array(bytes)))
            socket.binaryType = 'arraybuffer'
            socket.onmessage = ({data}) => {
                messages.push(typeof data === 'string' ? [data, ''] : ['', text(data)])
                if (messages.length > 60) socket.close(), resolve(messages)
            }
        })""",
        opened["media"]["ws"],
    )
    await other.close()
    assert json.loads(recorded[0][0])["mime"].endswith(',mp4a.40.2"')

    connections: list[WebSocketRoute] = []
    is_over = False

    def relay(connection: WebSocketRoute) -> None:
        server = connection.connect_to_server()
        server.on_message(lambda message: None if is_over else connection.send(message))
        connections.append(connection)

    await page.route_web_socket(re.compile(r"/media/.*/ws"), relay)
    await declare_purpose(page, watch_button(page, name_of(demo, "crossroads-day")))
    await expect(page.locator("[data-part=phase].live")).to_be_visible(timeout=LIVE_TIMEOUT_MS)
    await expect(page.get_by_role("button", name="Sound on")).to_have_count(0)
    is_over = True
    for text, data in recorded:
        connections[0].send(text or base64.b64decode(data))
    await expect(page.get_by_role("button", name="Sound on")).to_be_visible()
    await until_true(page, "() => document.querySelector('video').webkitAudioDecodedByteCount > 0")
    assert len(connections) == 1

    told = {"type": "end", "reason": "preempted", "detail": "", "by": "应急管理局"}
    connections[0].send(json.dumps(told))
    await connections[0].close(code=4009)
    await expect(page.locator("[data-part=ending]")).to_have_text(
        "Your place was given to a use of higher priority."
    )
    await expect(page.locator("[data-part=ended-by]")).to_have_text("Ended by 应急管理局.")
