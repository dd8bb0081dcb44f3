"""The portal's pages for who answers for what others do: purposes, ledger, trust, accounts, duty.

`demo` is as in test_portal.py; what a test changes it changes back, since others look at the same demo.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import Route, expect
from support.browser import open_page
from support.demos import ROOT
from support.portal_pages import call, enter, go, name_of, open_ledger, pick

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.xdist_group("demo"),
    pytest.mark.asyncio(loop_scope="module"),
]

OWNER, OPERATOR = "traffic-admin", "traffic-operator"
CAMERA = "crossroads-day"
UNWITNESSED = 3


async def verify(file: Path, key: Path) -> int:
    command = [sys.executable, "-m", "gateway", "audit", "verify", "--export", str(file), "--key", str(key)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, check=False)
    return done.returncode


async def test_an_auditor_says_why_reads_proves_and_exports(page, demo, tmp_path):
    await enter(page, demo, "auditor")
    await open_ledger(page)
    newest = page.locator("[data-part=record]").first
    for text in ("Ledger read", "Audit and supervision", "周正", "临海市人民政府"):
        await expect(newest).to_contain_text(text)
    await expect(page.locator("[data-part=head]")).to_contain_text("records · signed")

    await page.get_by_role("button", name="Filter").click()
    await pick(page, "record-kind", "Grant")
    await expect(page.locator("[data-part=record]").filter(has_text="Ledger read")).to_have_count(0)
    await newest.get_by_role("button").click()
    await page.get_by_role("button", name="Prove it").click()
    await expect(page.locator("[data-part=proof]")).to_contain_text("Computed in this browser: the record")
    await page.locator("[data-part=record-fields]").get_by_role("button", name="Filter").first.click()
    await expect(page.get_by_role("button", name="Filter (2)")).to_be_visible()

    key = tmp_path / "ledger.pub"
    key.write_text(demo.public_key + "\n")
    for form, name in (("JSON lines", "ledger.jsonl"), ("CSV", "ledger.csv")):
        async with page.expect_download() as download:
            await page.get_by_role("button", name=form).click()
        await (await download.value).save_as(tmp_path / name)
        assert await verify(tmp_path / name, key) == UNWITNESSED


async def test_a_forged_proof_is_told(page, demo):
    async def forge(route: Route) -> None:
        answer = await route.fetch()
        proof = await answer.json()
        proof["path"][0] = "00" * 32
        await route.fulfill(response=answer, json=proof)

    await page.route("**/api/v1/audit/proofs/*", forge)
    await enter(page, demo, "auditor")
    await open_ledger(page)
    await page.locator("[data-part=record]").first.get_by_role("button").click()
    await page.get_by_role("button", name="Prove it").click()
    await expect(page.locator("[data-part=proof]")).to_contain_text("does not lead to the signed head")


async def test_what_was_erased_is_said_to_be(page, demo):
    async def erase(route: Route) -> None:
        answer = await route.fetch()
        found = await answer.json()
        found["items"][0]["record"] |= {"actor_name": None, "content": ""}
        found["items"][0]["erased"] = ["actor_name", "content"]
        await route.fulfill(response=answer, json=found)

    await page.route("**/api/v1/audit/records?*", erase)
    await enter(page, demo, "auditor")
    await open_ledger(page)
    newest = page.locator("[data-part=record]").first
    await expect(newest.get_by_text("erased")).to_have_count(2)
    await newest.get_by_role("button").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Was recorded and erased since.")


async def test_a_purpose_is_made_allowed_by_an_owner_and_switched_off(browser, demo):
    async with open_page(browser) as security:
        await enter(security, demo, "security")
        await go(security, "Purposes")
        await security.get_by_role("button", name="New purpose").click()
        form = security.get_by_role("dialog")
        await form.get_by_role("button", name="Save").click()
        await expect(form).to_contain_text("Give the code and both texts.")
        await form.get_by_label("Code").fill("inspection")
        await form.get_by_label("Text in Chinese").fill("联合检查")
        await form.get_by_label("Text in English").fill("Joint inspection")
        await form.get_by_text("Watching live").click()
        await form.get_by_role("button", name="Save").click()
        row = security.locator("[data-part=purpose]").filter(has_text="inspection")
        await expect(row).to_contain_text("Watching live")

        async with open_page(browser) as owner:
            await enter(owner, demo, OWNER)
            await owner.get_by_role("button", name=name_of(demo, CAMERA), exact=True).click()
            allowed = owner.locator("[data-part=details-purposes]")
            await allowed.get_by_role("button", name="Change").click()
            await allowed.get_by_text("Only these").click()
            await expect(allowed).to_contain_text("nobody may watch this camera")
            await allowed.get_by_role("combobox").focus()
            await owner.keyboard.press("Enter")
            await owner.get_by_role("option", name="Joint inspection").click()
            # the list stays open for more until the focus leaves it
            await owner.keyboard.press("Tab")
            await allowed.get_by_role("button", name="Save").click()
            await expect(allowed.get_by_role("button", name="Change")).to_be_visible()
            await expect(allowed).to_contain_text("Joint inspection")
            _, detail = await call(owner, "GET", f"/cameras/{CAMERA}")
            assert detail["camera"]["sharing"]["purposes"] == ["inspection"]
            await allowed.get_by_role("button", name="Change").click()
            await allowed.get_by_text("Any", exact=True).click()
            await allowed.get_by_role("button", name="Save").click()
            await expect(allowed.get_by_role("button", name="Change")).to_be_visible()
            _, detail = await call(owner, "GET", f"/cameras/{CAMERA}")
            assert detail["camera"]["sharing"]["purposes"] is None

        await row.get_by_role("button").click()
        await form.get_by_text("In use").click()
        await form.get_by_role("button", name="Save").click()
        await expect(row).to_contain_text("Out of use")


async def test_a_grant_is_disputed_and_the_dispute_taken_back(page, demo):
    await enter(page, demo, OWNER)
    await page.get_by_role("button", name="Grants", exact=True).click()
    row = page.locator("[data-part=grant]").filter(has_text="赵敏").first
    await row.get_by_role("button", name="Dispute").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Dispute").click()
    await expect(dialog).to_contain_text("Say why.")
    await dialog.get_by_label("Why it is disputed").fill("任务已结束")
    await dialog.get_by_role("button", name="Dispute").click()
    await expect(row).to_contain_text("Suspended: disputed")

    await go(page, "Trust")
    dispute = page.locator("[data-part=dispute]").filter(has_text="任务已结束")
    await expect(dispute).to_contain_text("赵敏")
    await expect(dispute).to_contain_text("Open")
    await dispute.get_by_role("button").click()
    await page.get_by_role("dialog").get_by_label("Why").fill("继续")
    await page.get_by_role("dialog").get_by_role("button", name="Decide").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Somebody else has to decide")
    await page.get_by_role("dialog").get_by_text("Dismissed").click()
    await page.get_by_role("dialog").get_by_role("button", name="Decide").click()
    await expect(dispute).to_have_count(0)
    await page.get_by_text("Open only").click()
    await expect(dispute).to_contain_text("Dismissed")


async def test_frozen_grants_a_changed_file_and_void_rows_are_told(page, demo):
    status = {
        "frozen_since": "2026-01-05T08:00:00Z",
        "unconfirmed": 2,
        "file": {"sha256": "ab" * 32, "is_accepted": False, "changed_roles": ["operator"]},
        "void": {"grant": 3, "user": 0},
    }

    async def frozen(route: Route) -> None:
        await route.fulfill(json=status)

    await page.route("**/api/v1/policy", frozen)
    await enter(page, demo, OWNER)
    await go(page, "Trust")
    grants = page.locator("[data-part=trust-grants]")
    await expect(grants).to_contain_text("Frozen since 2026-01-05")
    await expect(grants).to_contain_text("2 grants wait for their owners.")
    await expect(page.locator("[data-part=trust-file]")).to_contain_text("give nothing until it is: operator")
    await expect(page.get_by_role("button", name="Accept this file")).to_have_count(0)
    await expect(page.locator("[data-part=trust-rows]").get_by_role("definition")).to_have_text(["3"])
    # the real gateway, where nothing is frozen
    await grants.get_by_role("button", name="Reconfirm its grants").click()
    await expect(grants).to_contain_text("0 grants count again.")


async def test_a_job_is_registered_with_who_answers_and_its_key_shown_once(page, demo):
    await enter(page, demo, OWNER)
    await go(page, "Accounts")
    await page.get_by_role("button", name="New account").click()
    form = page.get_by_role("dialog")
    await form.get_by_text("Job", exact=True).click()
    await form.get_by_label("User name").fill("counting-job")
    await form.get_by_label("Name", exact=True).fill("车流统计")
    await form.get_by_role("button", name="New account").click()
    await expect(form).to_contain_text("Fill in everything.")
    await page.locator("#job-responsible").focus()
    await page.keyboard.type(OPERATOR)
    await page.get_by_role("option", name="王建国").click()
    await form.get_by_label("What it does with the pictures").fill("统计车流")
    await form.get_by_label("Who receives its results").fill("交通运输局\n规划局")
    await form.get_by_label("Results are kept for").fill("30")
    await form.get_by_label("Networks it may come from").fill("10.20.0.1/24")
    await form.get_by_role("button", name="New account").click()
    await expect(form).to_contain_text("Not a network.")
    await form.get_by_label("Networks it may come from").fill("10.20.0.0/24")
    await form.get_by_role("button", name="New account").click()
    secret = page.locator("[data-part=secret]")
    first = await secret.inner_text()
    await form.get_by_role("button", name="Done").click()

    row = page.locator("[data-part=account]").filter(has_text="counting-job")
    await row.get_by_role("button").click()
    drawer = page.get_by_role("dialog", name="车流统计")
    await expect(drawer).to_contain_text("The key ends")
    await drawer.get_by_role("button", name="New key").click()
    await drawer.get_by_role("button", name="Do it").click()
    await expect(secret).not_to_have_text(first)
    await drawer.get_by_role("button", name="Done").click()
    await expect(secret).to_have_count(0)
    _, users = await call(page, "GET", "/users?q=counting-job")
    (job,) = users["items"]
    assert job["job"]["recipients"] == ["交通运输局", "规划局"]
    assert (job["job"]["responsible_id"], job["job"]["result_days"]) == (OPERATOR, 30)
    await drawer.get_by_role("button", name="Disable").click()
    await drawer.get_by_role("button", name="Do it").click()
    await expect(row).to_contain_text("Disabled")


async def test_people_sign_on_at_a_wall_and_off(browser, demo):
    async with open_page(browser) as owner:
        await enter(owner, demo, OWNER)
        _, me = await call(owner, "GET", "/me")
        department = {"department_id": me["department"]["id"]}
        wall_account = {"username": "hall-wall", "display_name": "大厅", "kind": "wall"}
        _, created = await call(owner, "POST", "/users", wall_account | department)
        colleague = {
            "username": "late-shift",
            "display_name": "周洋",
            "kind": "person",
            "roles": ["operator"],
        }
        _, later = await call(owner, "POST", "/users", colleague | department)
    async with open_page(browser) as own:
        await enter(own, demo, "late-shift", later["password"])
        _, undertaking = await call(own, "GET", "/undertaking")
        accepted, _ = await call(own, "POST", "/undertaking/accept", {"version": undertaking["version"]})
        assert accepted == 204
    async with open_page(browser) as wall:
        await enter(wall, demo, "hall-wall", created["password"])
        await expect(wall.get_by_role("heading", name="Who is on duty?")).to_be_visible()
        await expect(wall.get_by_role("navigation")).to_have_count(0)
        await wall.get_by_label("User name").fill("urban-operator")
        await wall.get_by_label("Password").fill(demo.accounts["urban-operator"][0])
        await wall.get_by_role("button", name="Sign on").click()
        await expect(wall.get_by_role("alert")).to_contain_text("Only people of the wall’s department")
        await wall.get_by_label("User name").fill(OPERATOR)
        await wall.get_by_label("Password").fill(demo.accounts[OPERATOR][0])
        await wall.get_by_role("button", name="Sign on").click()
        bar = wall.locator("[data-part=duty-bar]")
        await expect(bar).to_contain_text("王建国 is on duty")
        await expect(wall.locator("#cameras-heading")).to_be_visible()
        await bar.get_by_role("button", name="Hand over").click()
        form = wall.get_by_role("dialog")
        await form.get_by_label("User name").fill(OWNER)
        await form.get_by_label("Password").fill(demo.accounts[OWNER][0])
        await form.get_by_role("button", name="Hand over").click()
        await expect(form.get_by_role("alert")).to_contain_text("This person gave the wall access")
        await form.get_by_label("User name").fill("late-shift")
        await form.get_by_label("Password").fill(later["password"])
        await form.get_by_role("button", name="Hand over").click()
        await expect(bar).to_contain_text("周洋 is on duty")
        await bar.get_by_role("button", name="Sign off").click()
        await expect(wall.get_by_role("heading", name="Who is on duty?")).to_be_visible()


async def test_an_operator_is_offered_no_page_of_an_office(page, demo):
    await enter(page, demo, OPERATOR)
    await expect(page.get_by_role("navigation").get_by_role("button")).to_have_text(
        ["Cameras", "Grants", "Sessions"]
    )


@pytest.mark.parametrize("place", ["台账", "可信状态", "使用事由"])
async def test_pages_fit_a_phone_in_chinese(browser, demo, place):
    async with open_page(browser, locale="zh-CN", width=390, height=844) as page:
        await page.goto(demo.url)
        await page.locator("#username").fill("auditor")
        await page.locator("#password").fill(demo.accounts["auditor"][0])
        await page.keyboard.press("Enter")
        await page.locator("nav .menu > button").click()
        await page.get_by_role("navigation").get_by_role("listitem").get_by_role("button", name=place).click()
        await expect(page.get_by_role("heading", name=place, level=1)).to_be_visible()
        widths = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], json.dumps(widths)
