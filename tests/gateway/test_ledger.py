"""The ledger over the API: pages, proofs that verify, an export that verifies offline."""

import base64

import msgspec
import pytest
from support.controls import add_user, open_city

from gateway.audit.heads import parse_head
from gateway.audit.merkle import verify_consistency, verify_inclusion
from gateway.audit.verify import load_public_key, verify_export


async def _page(city, query="", **options):
    return await city.call("auditor", "GET", f"/audit/records?purpose=audit&page_size=500{query}", **options)


async def test_pages_are_complete_and_filters_hold(tmp_path, database_url, monkeypatch):
    # a page of 7 is found in several spans, and the whole in many
    monkeypatch.setattr("gateway.ledger.FIRST_SPAN", 1)
    monkeypatch.setattr("gateway.ledger.SPAN_GROWTH", 2)
    async with open_city(tmp_path, url=database_url) as city:
        await city.grant()
        opened = await city.watch("urban-operator")
        worker = await city.worker()
        await worker.start(opened)
        whole = (await _page(city))["items"]
        assert [item["seq"] for item in whole] == list(range(len(whole) - 1, -1, -1))
        newest, paged, before = whole[0]["seq"], [], f"&before={whole[0]['seq'] + 1}"
        while before is not None:
            page = await city.call("auditor", "GET", f"/audit/records?purpose=audit&page_size=7{before}")
            paged += page["items"]
            before = None if page["next_before"] is None else f"&before={page['next_before']}"
        assert paged == whole
        assert newest == len(whole) - 1
        for query, accepts in (
            ("&kind=grant", lambda record: record["kind"] == "grant"),
            ("&actor=urban-operator", lambda record: record.get("actor_id") == "urban-operator"),
            ("&camera=gate", lambda record: record.get("camera_id") == "gate"),
            (f"&session={opened['id']}", lambda record: record.get("session_id") == opened["id"]),
            (
                "&kind=decision&actor=urban-operator",
                lambda r: (r["kind"], r["actor_id"]) == ("decision", "urban-operator"),
            ),
        ):
            found = (await _page(city, query + f"&before={newest + 1}"))["items"]
            assert [item["seq"] for item in found] == [i["seq"] for i in whole if accepts(i["record"])], query
            assert found
        assert (await _page(city, "&actor=nobody"))["items"] == []


async def test_reading_is_recorded_before_it_is_answered(tmp_path):
    async with open_city(tmp_path) as city:
        first = (await _page(city, "&actor=root"))["items"]
        assert "ledger_read" not in {item["record"]["kind"] for item in first}
        reads = await city.records(kind="ledger_read")
        contents = [(read.actor_id, read.content) for read in reads]
        assert contents == [("auditor", "read records: actor root")]
        await city.call("auditor", "GET", "/audit/export?purpose=audit")
        await city.call("auditor", "GET", "/audit/proofs/0?purpose=audit")
        await city.call("root", "GET", "/audit/export?purpose=audit", expect=403)
        assert [record.content for record in await city.records(kind="export")] == ["export the ledger"]
        denied = await city.records(action="audit:read", outcome="deny")
        assert [record.actor_name for record in denied] == ["root"]


async def test_decisions_are_durable_before_their_answer(tmp_path):
    """What the answer says is in the ledger when it arrives, allowed or denied."""
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.watch("urban-operator")
        await city.watch("traffic-operator", expect=403)
        decisions = [
            (
                record.actor_id,
                record.outcome,
                record.reason,
                record.camera_id,
                record.purpose_code,
                record.unit_name,
            )
            for record in await city.records(kind="decision", action="live:view")
        ]
        assert decisions == [
            ("urban-operator", "allow", "granted", "gate", "patrol", "urban"),
            ("traffic-operator", "deny", "no_matching_grant", "gate", "patrol", "traffic"),
        ]


@pytest.mark.parametrize(
    ("username", "method", "path", "body", "kind"),
    [
        ("root", "POST", "/departments", {"name": "n", "parent_id": "urban"}, "department_created"),
        ("traffic-admin", "POST", "/groups", {"name": "n", "department_id": "traffic"}, "group_created"),
        ("traffic-admin", "PATCH", "/cameras/gate", {"name": "n"}, "camera_changed"),
        ("traffic-admin", "DELETE", "/cameras/gate", None, "camera_deleted"),
        ("traffic-admin", "PATCH", "/users/traffic-operator", {"display_name": "n"}, "user_changed"),
        ("security", "POST", "/purposes", {"code": "n", "text": {"zh": "n", "en": "n"}}, "purpose_changed"),
    ],
)
async def test_every_change_has_its_decision_and_its_record(tmp_path, username, method, path, body, kind):
    async with open_city(tmp_path) as city:
        before = len(await city.records())
        await city.call(username, method, path, body, headers={"X-Request-Id": "request-1"})
        decision, record = (await city.records())[before:]
        assert (decision.kind, decision.outcome, record.kind, record.outcome) == (
            "decision",
            "allow",
            kind,
            "ok",
        )
        for event in (decision, record):
            assert username in {event.actor_id, "root"}
            assert event.actor_name.startswith(username)
            assert event.unit_name == ("traffic" if username == "traffic-admin" else "City 市")
            assert (event.remote, event.request_id) == ("192.0.2.1", "request-1")
            assert event.content


async def test_proofs_verify_against_a_signed_head(tmp_path):
    async with open_city(tmp_path) as city:
        heads = await city.call("auditor", "GET", "/audit/heads")
        key = load_public_key(heads["public_key"])
        records = {item["seq"]: item for item in (await _page(city))["items"]}
        for seq in (0, 1, len(records) - 1):
            proof = await city.call("auditor", "GET", f"/audit/proofs/{seq}?purpose=audit")
            head = _head(proof["head"])
            assert (proof["tree_size"], proof["leaf_hash"]) == (head.head.size, records[seq]["leaf_hash"])
            path = [bytes.fromhex(node) for node in proof["path"]]
            leaf = bytes.fromhex(proof["leaf_hash"])
            assert verify_inclusion(seq, head.head.size, leaf, path, head.head.root)
            assert key.verify(head)
        old = _head(heads["items"][-1])
        proof = await city.call(
            "urban-operator", "GET", f"/audit/consistency?old_size={old.head.size}&tree_size={head.head.size}"
        )
        path = [bytes.fromhex(node) for node in proof["path"]]
        assert verify_consistency(old.head.size, head.head.size, old.head.root, head.head.root, path)
        early = await city.call("auditor", "GET", f"/audit/proofs/0?purpose=audit&tree_size={old.head.size}")
        assert early["tree_size"] == old.head.size
        await city.call("auditor", "GET", "/audit/proofs/999999?purpose=audit", expect=404)
        await city.call(
            "auditor",
            "GET",
            f"/audit/proofs/{old.head.size}?purpose=audit&tree_size={old.head.size}",
            expect=422,
        )


def _head(fields):
    return parse_head(msgspec.json.encode(fields))


async def test_an_export_verifies_offline_and_an_altered_one_does_not(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        key = load_public_key((await city.call("auditor", "GET", "/audit/heads"))["public_key"])
        text = await city.call("auditor", "GET", "/audit/export?purpose=audit")
    export = tmp_path / "ledger.jsonl"
    export.write_text(text, encoding="utf-8")
    report = verify_export(export, key, None)
    assert (report.status, report.findings) == ("unwitnessed", [])
    assert report.records > 20
    lines = text.splitlines()
    index, line, leaf = next(
        (index, line, leaf)
        for index, line in enumerate(map(msgspec.json.decode, lines))
        if "City 市".encode() in (leaf := base64.b64decode(line.get("leaf", "")))
    )
    leaf = leaf.replace("City 市".encode(), "City 区".encode())
    lines[index] = msgspec.json.encode({**line, "leaf": base64.b64encode(leaf).decode()}).decode()
    export.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert verify_export(export, key, None).status == "altered"


async def test_heads_come_in_pages(tmp_path):
    async with open_city(tmp_path) as city:
        whole = (await city.call("job", "GET", "/audit/heads?page_size=500"))["items"]
        sizes = [head["size"] for head in whole]
        assert sizes == sorted(sizes, reverse=True)
        page = (await city.call("job", "GET", f"/audit/heads?page_size=2&before={sizes[1]}"))["items"]
        assert [head["size"] for head in page] == sizes[2:4]


async def _auditors(city):
    """One of each department, and one of a department below urban."""
    await city.call("root", "POST", "/departments", {"id": "rivers", "name": "rivers", "parent_id": "urban"})
    for department in ("traffic", "urban", "rivers"):
        await add_user(city, f"{department}-auditor", department, "auditor")


async def _read(city, username, query=""):
    path = f"/audit/records?purpose=audit&page_size=500{query}"
    return {item["seq"]: item["record"] for item in (await city.call(username, "GET", path))["items"]}


async def test_an_auditor_reads_what_his_departments_did_and_what_was_done_to_their_cameras(
    tmp_path, database_url
):
    async with open_city(tmp_path, url=database_url) as city:
        await _auditors(city)
        await add_user(city, "rivers-operator", "rivers", "operator")
        await city.grant("rivers-operator")
        await city.watch("rivers-operator")
        await city.watch("traffic-operator", expect=403)
        everything = await _read(city, "auditor")
        assert list(everything) == list(range(max(everything), -1, -1))
        for username, departments in (
            ("traffic-auditor", {"traffic"}),
            ("urban-auditor", {"urban", "rivers"}),
            ("rivers-auditor", {"rivers"}),
        ):
            seen = await _read(city, username, f"&before={len(everything)}")
            expected = {
                seq
                for seq, record in everything.items()
                if {record.get("unit_id"), record.get("owner_id")} & departments
            }
            assert set(seen) == expected, username
        looks = {
            username: len([r for r in (await _read(city, username)).values() if r.get("camera_id") == "gate"])
            for username in ("traffic-auditor", "urban-auditor", "rivers-auditor")
        }
        # the owner sees the camera made, granted, looked at and refused; the other unit its own look only
        assert looks["urban-auditor"] == looks["rivers-auditor"] == 1
        assert looks["traffic-auditor"] > 2
        hers = await _read(city, "traffic-auditor", "&owner=traffic&unit=rivers")
        assert {(r["unit_id"], r["owner_id"], r["outcome"]) for r in hers.values()} == {
            ("rivers", "traffic", "allow")
        }


async def test_one_record_is_proved_to_who_may_read_it_and_all_only_to_who_audits_everything(tmp_path):
    async with open_city(tmp_path) as city:
        await _auditors(city)
        mine = next(iter(await _read(city, "traffic-auditor", "&owner=traffic")))
        other = next(iter(await _read(city, "urban-auditor", "&unit=urban&kind=login")))
        await city.call("auditor", "GET", f"/audit/proofs/{mine}?purpose=audit")
        for seq, status in ((mine, 200), (other, 404), (0, 404)):
            await city.call("traffic-auditor", "GET", f"/audit/proofs/{seq}?purpose=audit", expect=status)
            await city.call("auditor", "GET", f"/audit/proofs/{seq}?purpose=audit")
        await city.call("traffic-auditor", "GET", "/audit/export?purpose=audit", expect=403)
        (denied,) = await city.records(actor_id="traffic-auditor", outcome="deny")
        assert (denied.action, denied.resource) == ("audit:read", "installation:")


async def test_who_audits_nothing_is_denied_and_recorded(tmp_path):
    async with open_city(tmp_path) as city:
        for username in ("root", "traffic-admin", "security", "urban-operator"):
            await city.call(username, "GET", "/audit/records?purpose=audit", expect=403)
        denied = await city.records(action="audit:read", outcome="deny")
        assert [record.actor_id or record.actor_name for record in denied][1:] == [
            "traffic-admin",
            "security",
            "urban-operator",
        ]


async def test_another_top_department_is_not_the_auditors(tmp_path):
    """Who audits one of two cities does not audit both."""
    async with open_city(tmp_path) as city:
        await city.call("root", "POST", "/departments", {"id": "other", "name": "other city"})
        await city.call("auditor", "GET", "/audit/export?purpose=audit", expect=403)
        seen = (await _read(city, "auditor")).values()
        assert not any("other" in {record.get("unit_id"), record.get("owner_id")} for record in seen)
        assert all(record.get("unit_id") or record.get("owner_id") for record in seen)


async def test_reading_needs_a_purpose_and_is_recorded_with_it(tmp_path):
    async with open_city(tmp_path) as city:
        for path in ("/audit/records", "/audit/proofs/0", "/audit/export"):
            for query, code in (
                ("", "purpose_required"),
                ("?purpose=patrol&reference=x", "purpose_not_for_this"),
                ("?purpose=case", "purpose_reference_required"),
            ):
                assert (await city.call("auditor", "GET", path + query, expect=422))["code"] == code
        assert await city.records(action="audit:read") == []
        for path in ("/audit/records", "/audit/proofs/0", "/audit/export"):
            await city.call("auditor", "GET", f"{path}?purpose=case&reference=2026-17&note=n")
        for kind, count in (("decision", 3), ("ledger_read", 2), ("export", 1)):
            found = await city.records(kind=kind, action="audit:read")
            declared = [(r.purpose_code, r.purpose_reference, r.purpose_note) for r in found]
            assert declared == [("case", "2026-17", "n")] * count
