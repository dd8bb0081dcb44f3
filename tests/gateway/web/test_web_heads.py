"""What of the ledger is public, and the change of its key over the API."""

import base64

import msgspec
from support.controls import PASSWORD, open_city
from typer.testing import CliRunner

from gateway.audit.heads import parse_head
from gateway.audit.key_history import RotationJson, follow, parse_rotation
from gateway.audit.liveness import SignOfLifeJson, parse_sign_of_life
from gateway.audit.merkle import verify_consistency
from gateway.audit.verify import load_public_key
from gateway.cli import app

SECURITY = "security"


async def public(city, path, expect=None):
    return await city.call(None, "GET", path, expect=expect)


def parsed(head):
    return parse_head(msgspec.json.encode(head))


async def chain(city):
    page = await public(city, "/audit/keys")
    key = load_public_key(page["public_key"])
    documents = page["items"]
    rotations = [
        parse_rotation(
            RotationJson(item["leaf"], item["path"], msgspec.Raw(msgspec.json.encode(item["head"])))
        )
        for item in documents
    ]
    assert [item["after_size"] for item in documents] == [rotation.after_size for rotation in rotations]
    keys = follow(key, rotations)
    assert [item["public_key"] for item in documents] == [
        keys.verifier_at(size).to_text() for size in keys.sizes
    ]
    return keys


async def test_heads_are_for_everybody_and_say_that_they_live(tmp_path):
    async with open_city(tmp_path) as city:
        for _ in range(3):
            await city.login("auditor")
        page = await public(city, "/audit/heads?page_size=2")
        assert len(page["items"]) == 2
        new, old = (parsed(item).head for item in page["items"])
        path = (await public(city, f"/audit/consistency?old_size={old.size}&tree_size={new.size}"))["path"]
        proof = [bytes.fromhex(node) for node in path]
        assert verify_consistency(old.size, new.size, old.root, new.root, proof)
        keys = await chain(city)
        alive = parse_sign_of_life(msgspec.convert(page["alive"], SignOfLifeJson))
        assert alive.verify(keys)
        assert (alive.size, alive.root) == (new.size, new.root)
        city.clock.advance(60)
        later = (await public(city, "/audit/heads?page_size=1"))["alive"]
        assert later["time"] == alive.time + 60_000_000
        assert later["size"] == alive.size, "asking writes nothing"


async def test_public_questions_are_bounded(tmp_path):
    async with open_city(tmp_path) as city:
        for path in ("heads", "keys"):
            for size, expect in ((0, 422), (1, 200), (500, 200), (501, 422)):
                await public(city, f"/audit/{path}?page_size={size}", expect)
        for query in ("old_size=0&tree_size=1", "old_size=2&tree_size=1", "old_size=1&tree_size=99999999"):
            await public(city, f"/audit/consistency?{query}", 422)
        await public(city, "/audit/keys?after=-1", 422)


async def test_a_security_administrator_changes_the_key(tmp_path):
    async with open_city(tmp_path) as city:
        for username in ("root", "traffic-admin", "auditor", "urban-operator"):
            await city.call(username, "POST", "/audit/keys", expect=403)
        assert (await public(city, "/audit/keys"))["items"] == []
        entries = [await city.call(SECURITY, "POST", "/audit/keys", expect=201) for _ in range(3)]
        page = await public(city, "/audit/keys")
        assert page["items"] == entries
        assert (await public(city, f"/audit/keys?after={entries[0]['after_size']}&page_size=1"))["items"] == [
            entries[1]
        ]
        keys = await chain(city)
        heads = [parsed(item) for item in (await public(city, "/audit/heads?page_size=500"))["items"]]
        assert all(keys.verify(head) for head in heads)
        changed = await city.records(kind="signing_key_changed")
        assert [record.actor_id for record in changed] == [SECURITY] * 3
        assert [record.detail["public_key"] for record in changed] == [e["public_key"] for e in entries]
        for entry in entries:
            assert b"PRIVATE" not in base64.b64decode(entry["leaf"])


def test_the_command_line_wants_a_password_and_a_gateway(tmp_path):
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    nobody = ["--url", "http://127.0.0.1:1", "--user", "x", "--password-file", str(password)]
    runner = CliRunner()
    result = runner.invoke(app, ["audit", "rotate-key", *nobody])
    assert (result.exit_code, "gateway_unreachable" in result.output + result.stderr) == (2, True)
