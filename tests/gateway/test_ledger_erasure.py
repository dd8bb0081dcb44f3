"""Erasing from the ledger over the API, and the export for a spreadsheet."""

from support.controls import open_city

from gateway.audit.verify import load_public_key, verify_export


def _body(*fields, reason="at her request", purpose="audit"):
    return {"fields": list(fields), "reason": reason, "purpose": {"code": purpose}}


async def _newest(city, query):
    page = await city.call("auditor", "GET", f"/audit/records?purpose=audit&{query}")
    return page["items"][0]


async def test_a_security_administrator_erases_for_a_purpose_and_on_the_record(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.watch("urban-operator")
        looked = await _newest(city, "kind=decision&actor=urban-operator&camera=gate")
        assert looked["erased"] == []
        address = f"/audit/records/{looked['seq']}/erasure"
        await city.call("security", "POST", address, _body("actor_name", "remote"), expect=204)
        left = await _newest(city, "kind=decision&actor=urban-operator&camera=gate")
        assert (left["seq"], left["erased"]) == (looked["seq"], ["actor_name", "remote"])
        assert left["record"].get("actor_name") is None
        assert left["record"]["content"] == looked["record"]["content"]
        assert left["leaf_hash"] == looked["leaf_hash"]
        erasure = (await _newest(city, "kind=erasure"))["record"]
        assert (erasure["actor_id"], erasure["purpose_code"]) == ("security", "audit")
        assert erasure["content"].endswith("at her request")
        assert erasure["detail"] == {"seq": looked["seq"], "fields": ["actor_name", "remote"]}

        for who, body, status, code in (
            ("security", _body("actor_name"), 422, "erasure_refused"),
            ("security", _body("camera_id"), 422, "erasure_refused"),
            ("security", _body("content", purpose="none-such"), 422, "purpose_unknown"),
            ("security", _body("content") | {"purpose": None}, 422, "purpose_required"),
            ("security", _body(), 422, "invalid_field"),
            ("security", _body("content", reason=""), 422, "invalid_field"),
            ("security", _body(*["content"] * 6), 422, "invalid_field"),
            ("auditor", _body("content"), 403, "access_denied"),
            ("root", _body("content"), 403, "access_denied"),
        ):
            answer = await city.call(who, "POST", address, body, expect=status)
            assert answer["code"] == code, body
        for seq in ("999999", "x", "-1", "9" * 5000):
            await city.call("security", "POST", f"/audit/records/{seq}/erasure", _body("content"), expect=404)
        own = await _newest(city, "actor=security")
        answer = await city.call(
            "security", "POST", f"/audit/records/{own['seq']}/erasure", _body("content"), expect=422
        )
        assert answer["code"] == "erasure_refused"


async def test_an_export_for_a_spreadsheet_verifies_offline(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        key = load_public_key((await city.call(None, "GET", "/audit/heads"))["public_key"])
        token = city.tokens["auditor"]
        status, headers, text = await city.request(
            "GET", "/api/v1/audit/export?format=csv&purpose=audit", token
        )
        assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
        assert headers["Content-Disposition"] == 'attachment; filename="ledger.csv"'
        await city.call("auditor", "GET", "/audit/export?format=xls&purpose=audit", expect=422)
    export = tmp_path / "ledger.csv"
    export.write_bytes(text.encode())
    report = verify_export(export, key)
    assert (report.status, report.findings) == ("unwitnessed", [])
    export.write_bytes(text.encode().replace(b"grant", b"guant", 1))
    assert verify_export(export, key).status == "altered"
