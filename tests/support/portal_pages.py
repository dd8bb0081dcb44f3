"""What tests of the portal do on its pages."""

from typing import Any

from playwright.async_api import Locator, Page, expect

LIVE_TIMEOUT_MS = 20_000
ENDED_TIMEOUT_MS = 5_000


def operator_of(demo) -> tuple[str, str]:
    """The first operator's user name and password."""
    return next(
        (username, password)
        for username, (password, role, _department) in demo.accounts.items()
        if role == "operator"
    )


async def sign_in(page: Page, demo, username: str | None = None) -> None:
    username = username or operator_of(demo)[0]
    password = demo.accounts[username][0]
    await page.goto(demo.url)
    await page.locator("#username").fill(username)
    await page.locator("#password").fill(password)
    await page.keyboard.press("Enter")
    await expect(page.locator("#cameras-heading")).to_be_visible()
    await expect(page.locator("[data-part=camera]").first).to_be_visible()


async def enter(page: Page, demo, username: str, password: str | None = None) -> None:
    """Log in; unlike `sign_in` also as somebody who sees no camera."""
    await page.goto(demo.url)
    await page.locator("#username").fill(username)
    await page.locator("#password").fill(password or demo.accounts[username][0])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()


async def go(page: Page, place: str) -> None:
    """By keyboard, through the menu of what one's offices lead to."""
    await page.locator("nav .menu > button").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("navigation").get_by_role("listitem").get_by_role("button", name=place).click()
    await expect(page.get_by_role("heading", name=place, level=1)).to_be_visible()


async def pick(page: Page, field: str, option: str) -> None:
    await page.locator(f"#{field}").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("option", name=option, exact=True).click()


async def open_ledger(page: Page) -> None:
    await go(page, "Ledger")
    await page.get_by_role("button", name="Open the ledger").click()
    await expect(page.get_by_text("Choose a purpose.")).to_be_visible()
    await pick(page, "purpose-code", "Audit and supervision")
    await page.get_by_role("button", name="Open the ledger").click()
    await expect(page.locator("[data-part=record]").first).to_be_visible()


def name_of(demo, camera_id: str) -> str:
    return next(camera["name"] for camera in demo.cameras if camera["id"] == camera_id)


async def call(page: Page, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request of the API in the page's name: the status and the answer."""
    ask = """async ([method, path, body]) => {
        const headers = {'Content-Type': 'application/json'}
        const answer = await fetch('/api/v1' + path, {method, headers, body: body && JSON.stringify(body)})
        return [answer.status, await answer.json().catch(() => null)]
    }"""
    status, answer = await page.evaluate(ask, [method, path, body])
    return status, answer


def watch_button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=f"Watch {name}", exact=True)


async def declare_purpose(page: Page, button: Locator, stream: str | None = None) -> None:
    """By keyboard alone, as far as the dialog goes."""
    await button.click()
    dialog = page.get_by_role("dialog")
    purpose = dialog.get_by_role("combobox")
    await expect(purpose).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("option").first).to_be_visible()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("option").first).to_be_hidden()
    reference = dialog.locator("#purpose-reference")
    if await reference.is_visible():
        await reference.fill("TEST-2026-001")
    if stream is not None:
        await dialog.get_by_label(stream).check()
    await dialog.locator("button[type=submit]").click()


async def watched_session(page: Page) -> str:
    return (await page.locator("[data-part=session]").inner_text()).strip()
