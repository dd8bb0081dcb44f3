"""The portal as a department's administrator uses it: find a camera, give it, explain it, take it back."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect
from support.browser import open_page
from support.portal_pages import call, name_of, sign_in

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.xdist_group("demo"),
    pytest.mark.asyncio(loop_scope="module"),
]

CAMERA = "highway"
FIELDS = {
    "code": "33010601001310000001",
    "network": "video-private-network",
    "point_class": 1,
    "place": "绕城高速十二公里处",
    "longitude": 120.5,
    "latitude": 30.25,
    "direction": "northeast",
    "tags": ["交通枢纽"],
    "retention_days": 30,
}


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser, demo) -> AsyncIterator[Page]:
    async with open_page(browser) as opened:
        await sign_in(opened, demo, "traffic-admin")
        status, _ = await call(opened, "PATCH", f"/cameras/{CAMERA}", FIELDS)
        assert status == 200
        yield opened


async def choose(page: Page, field: str, text: str, option: str) -> None:
    """By keyboard, in a list that asks the gateway."""
    await page.locator(f"#{field}").focus()
    await page.keyboard.type(text)
    await page.get_by_role("option", name=option).click()


async def open_details(page: Page, demo) -> None:
    await page.get_by_role("button", name=name_of(demo, CAMERA), exact=True).click()
    await expect(page.locator("[data-part=details-identity]")).to_be_visible()


async def given_to(page: Page, user: str) -> list[dict]:
    _, answer = await call(page, "GET", f"/grants?subject_kind=user&subject={user}&object={CAMERA}")
    return answer["items"]


async def test_search_and_filters_find_a_camera_and_its_details_say_all(page, demo):
    names = page.locator(".camera-name")
    everything = await names.count()
    for words in ("十二公里", "330106 高速"):
        await page.get_by_label("Search by name, place or code").fill(words)
        await expect(names).to_have_text([name_of(demo, CAMERA)])
    await page.get_by_label("Search by name, place or code").fill("没有")
    await expect(page.get_by_text("No camera matches “没有”")).to_be_visible()
    await page.get_by_label("Search by name, place or code").fill("")
    await expect(names).to_have_count(everything)

    await page.get_by_role("button", name="Filter").click()
    await page.locator("#filter-network").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("option", name="Video private network").click()
    await expect(names).to_have_text([name_of(demo, CAMERA)])
    await expect(page.get_by_role("button", name="Filter (1)")).to_be_visible()
    await page.get_by_label("Tag", exact=True).fill("交通")
    await expect(page.get_by_text("No camera fits the filter")).to_be_visible()
    await page.get_by_label("Tag", exact=True).fill("交通枢纽")
    await expect(names).to_have_text([name_of(demo, CAMERA)])
    await page.get_by_role("button", name="Clear", exact=True).click()
    await expect(names).to_have_count(everything)

    await open_details(page, demo)
    details = page.get_by_role("dialog")
    for text in (
        "33010601001310000001",
        "Video private network",
        "绕城高速十二公里处",
        "30.250000° N, 120.500000° E",
        "north-east",
        "30 days",
        "By grants",
    ):
        await expect(details).to_contain_text(text)


async def test_a_grant_is_previewed_given_explained_and_revoked(page, demo):
    person, name = "urban-operator", "赵敏"
    assert await given_to(page, person) == []
    await open_details(page, demo)

    await page.get_by_role("button", name="New grant").click()
    form = page.get_by_role("dialog", name="New grant")
    await form.get_by_role("button", name="What would it do?").click()
    await expect(form).to_contain_text("Choose to whom.")
    await choose(page, "grant-subject", person, name)
    await page.get_by_label("Reason").fill("联合巡查")
    answered = asyncio.Event()

    async def late(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route("**/api/v1/grants?dry_run=1", late)
    await form.get_by_role("button", name="What would it do?").click()
    await page.get_by_label("Reason").fill("what nobody was shown the effect of")
    answered.set()
    preview = page.locator("[data-part=preview]")
    await expect(preview).to_contain_text("1 access is gained")
    await expect(preview).to_contain_text(name)
    await expect(preview).to_contain_text(name_of(demo, CAMERA))
    assert await given_to(page, person) == []
    await page.get_by_role("button", name="Give the grant").click()
    await expect(preview).to_be_hidden()
    (grant,) = await given_to(page, person)
    assert (grant["actions"], grant["reason"]) == (["live:view"], "联合巡查")

    await page.get_by_role("button", name="Why can’t somebody see it?").click()
    await choose(page, "explain-person", person, name)
    await page.get_by_role("button", name="Explain", exact=True).click()
    explanation = page.locator("[data-part=explanation]")
    await expect(explanation).to_have_class("answer allow")
    await expect(explanation).to_contain_text(name)
    await page.get_by_role("button", name="Close", exact=True).click()
    await page.keyboard.press("Escape")

    await page.get_by_role("button", name="Grants", exact=True).click()
    row = page.locator("[data-part=grant]").filter(has_text="联合巡查").filter(has_text=name_of(demo, CAMERA))
    await expect(row).to_have_count(1)
    await row.get_by_role("button", name="Revoke").click()
    await expect(preview).to_contain_text("1 access is lost")
    await page.get_by_label("Why it is revoked").fill("结束")
    await page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    await expect(row).to_have_count(0)
    assert await given_to(page, person) == []


async def test_who_cannot_share_sees_what_was_given_to_him(browser, demo):
    async with open_page(browser, locale="zh-CN") as page:
        await sign_in(page, demo, "urban-operator")
        await page.get_by_role("button", name="授权", exact=True).click()
        await expect(page.locator("[data-part=grant]").first).to_be_visible()
        await expect(page.get_by_role("button", name="新建授权")).to_have_count(0)
        await expect(page.get_by_role("button", name="收回")).to_have_count(0)
