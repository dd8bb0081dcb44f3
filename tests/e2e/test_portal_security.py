"""What security administrators do in the portal: erase from a record, change the signing key, publish.

`demo` is as in test_portal.py. A published undertaking cannot be taken back: everybody accepts it in the end.
"""

import re

import pytest
from playwright.async_api import Page, Route, expect
from support.browser import open_page
from support.portal_pages import call, declare_purpose, enter, go, name_of, open_ledger, pick, watch_button

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.xdist_group("demo"),
    pytest.mark.asyncio(loop_scope="module"),
]

OPERATOR, CAMERA = "traffic-operator", "crossroads-day"


async def erase(page: Page, seq: str, field: str) -> None:
    await page.get_by_role("button", name="Erase fields").click()
    form = page.get_by_role("dialog")
    await expect(form).to_contain_text("This cannot be undone. It is itself recorded")
    await form.get_by_label("Number of the record").fill(seq)
    await form.get_by_text(field, exact=True).click()
    await form.get_by_label("Why").fill("本人申请")
    await pick(page, "purpose-code", "Audit and supervision")
    await form.get_by_role("button", name="Erase for good").click()


async def accept_everywhere(page: Page, demo, version: int) -> None:
    for username, (password, role, _department) in demo.accounts.items():
        if role == "job":
            continue
        credentials = {"username": username, "password": password, "cookie": True}
        status, _ = await call(page, "POST", "/login", credentials)
        assert status == 200
        status, _ = await call(page, "POST", "/undertaking/accept", {"version": version})
        assert status == 204
    await call(page, "POST", "/logout")


async def test_a_name_is_erased_from_a_record_whose_proof_stays_good(browser, page, demo):
    await enter(page, demo, "auditor")
    await open_ledger(page)
    newest = page.locator("[data-part=record]").first
    seq = re.search(r"Record (\d+)", await newest.inner_text()).group(1)
    await newest.get_by_role("button").click()
    await expect(page.get_by_role("dialog")).to_contain_text(f"Tell him the number of this record ({seq})")
    await page.keyboard.press("Escape")

    async with open_page(browser) as security:
        await enter(security, demo, "security")
        await go(security, "Ledger")
        await security.get_by_role("button", name="Erase fields").click()
        form = security.get_by_role("dialog")
        await form.get_by_role("button", name="Erase for good").click()
        for missing in ("Give the number", "Choose at least one.", "Say why.", "Choose a purpose."):
            await expect(form).to_contain_text(missing)
        await form.get_by_role("button", name="Cancel").click()
        await erase(security, seq, "Name")
        erasure = security.locator("[data-part=erasure]")
        await expect(erasure.get_by_role("status")).to_contain_text(f"Erased from record {seq}.")
        await erase(security, seq, "Name")
        await expect(form.get_by_role("alert")).to_contain_text("Nothing was erased")

    await page.get_by_role("button", name="Other purpose").click()
    await open_ledger_again(page)
    row = page.locator("[data-part=record]").filter(has_text=re.compile(rf"Record {seq}(?!\d)"))
    await expect(row.get_by_text("erased", exact=True)).to_be_visible()
    await expect(page.locator("[data-part=record]").filter(has_text="Erasure").first).to_contain_text(
        "本人申请"
    )
    await row.get_by_role("button").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Was recorded and erased since.")
    await page.get_by_role("button", name="Prove it").click()
    await expect(page.locator("[data-part=proof]")).to_contain_text("Computed in this browser: the record")


async def open_ledger_again(page: Page) -> None:
    await pick(page, "purpose-code", "Audit and supervision")
    await page.get_by_role("button", name="Open the ledger").click()
    await expect(page.locator("[data-part=record]").first).to_be_visible()


async def test_who_holds_both_duties_erases_what_he_reads(page, demo):
    """The shipped roles join them in nobody: the page is made to believe it, the gateway is not."""
    erasures: list[object] = []

    async def both(route: Route) -> None:
        answer = await route.fetch()
        roles = await answer.json()
        for role in roles["items"]:
            role["installation"].append("security:manage")
        await route.fulfill(response=answer, json=roles)

    async def erased(route: Route) -> None:
        erasures.append(route.request.post_data_json)
        await (route.continue_() if len(erasures) == 1 else route.fulfill(status=204))

    await page.route("**/api/v1/roles", both)
    await page.route("**/api/v1/audit/records/*/erasure", erased)
    await enter(page, demo, "auditor")
    await open_ledger(page)
    row = page.locator("[data-part=record]").first
    await row.get_by_role("button").click()
    await page.get_by_role("button", name="Erase fields").click()
    form = page.get_by_role("dialog", name="Erase from record")
    await expect(form.get_by_role("checkbox")).to_have_count(3)
    await form.get_by_text("Name", exact=True).click()
    await form.get_by_text("Address", exact=True).click()
    await form.get_by_label("Why").fill("本人申请")
    await form.get_by_role("button", name="Erase for good").click()
    await expect(form.get_by_role("alert")).to_contain_text("Neither a grant nor a role")
    await form.get_by_role("button", name="Erase for good").click()
    fields = page.locator("[data-part=record-fields]")
    await expect(fields.get_by_text("erased", exact=True)).to_have_count(2)
    await expect(row.get_by_text("erased", exact=True)).to_have_count(1)
    assert erasures[1] == {
        "fields": ["actor_name", "remote"],
        "reason": "本人申请",
        "purpose": {"code": "audit", "reference": None, "note": None},
    }


async def test_the_signing_key_is_changed(browser, page, demo):
    await enter(page, demo, "security")
    await go(page, "Trust")
    keys = page.locator("[data-part=signing-key]")
    await expect(keys.last).to_contain_text(demo.public_key)
    before = await keys.count()
    in_force = await keys.first.get_by_role("rowheader").inner_text()
    await page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("destroys the present one. This cannot be undone.")
    await dialog.get_by_role("button", name="New key").click()
    told = page.locator("[data-part=signing-keys]").get_by_role("status")
    await expect(told).to_contain_text("Witnesses learn of it by themselves")
    await expect(keys).to_have_count(before + 1)
    await expect(keys.first).to_contain_text("In force")
    await expect(keys.nth(1)).to_contain_text(in_force)
    await expect(keys.nth(1)).to_contain_text("Retired")
    _, listed = await call(page, "GET", "/audit/keys")
    assert listed["items"][-1]["public_key"] == await keys.first.get_by_role("rowheader").inner_text()

    async with open_page(browser) as auditor:
        await enter(auditor, demo, "auditor")
        await go(auditor, "Trust")
        await expect(auditor.locator("[data-part=signing-key]")).to_have_count(before + 1)
        await expect(auditor.get_by_role("button", name="New key")).to_have_count(0)


async def test_everybody_accepts_a_published_undertaking_anew(browser, page, demo):
    async with open_page(browser) as operator:
        await enter(operator, demo, OPERATOR)
        await expect(watch_button(operator, name_of(demo, CAMERA))).to_be_visible()
        await enter(page, demo, "security")
        await go(page, "Undertaking")
        _, current = await call(page, "GET", "/undertaking")
        await expect(page.locator("[data-part=undertaking-zh]")).to_contain_text("谁使用，谁负责")
        await page.get_by_role("button", name="New version").click()
        form = page.get_by_role("dialog")
        await expect(form).to_contain_text("Everybody has to accept the new version before the next picture")
        await form.get_by_role("button", name="Publish").click()
        await expect(form.get_by_role("alert")).to_contain_text("Neither text is another")
        await form.get_by_label("Text in English").fill("")
        await form.get_by_role("button", name="Publish").click()
        await expect(form.get_by_role("alert")).to_contain_text("Give both texts.")
        version = current["version"] + 1
        await form.get_by_label("Text in English").fill("Seventh: I look with care.")
        await form.get_by_role("button", name="Publish").click()
        try:
            await expect(page.get_by_role("status")).to_contain_text(f"Version {version} is in force.")
            await expect(page.locator("[data-part=undertaking-en]")).to_contain_text(
                "Seventh: I look with care."
            )
            # his page knows nothing of it yet; the gateway does
            await declare_purpose(operator, watch_button(operator, name_of(demo, CAMERA)))
            await expect(operator.locator("[data-part=undertaking]")).to_have_text(
                "Seventh: I look with care."
            )
        finally:
            await accept_everywhere(page, demo, version)


@pytest.mark.parametrize("place", ["台账", "可信状态", "使用承诺书"])
async def test_their_pages_fit_a_phone_in_chinese(browser, demo, place):
    async with open_page(browser, locale="zh-CN", width=390, height=844) as page:
        await page.goto(demo.url)
        await page.locator("#username").fill("security")
        await page.locator("#password").fill(demo.accounts["security"][0])
        await page.keyboard.press("Enter")
        await page.locator("nav .menu > button").click()
        await page.get_by_role("navigation").get_by_role("listitem").get_by_role("button", name=place).click()
        await expect(page.get_by_role("heading", name=place, level=1)).to_be_visible()
        width, limit = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= limit
