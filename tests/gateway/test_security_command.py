"""`custos audit erase` and `custos policy undertaking` against a gateway."""

import asyncio
import json

import pytest
from support.controls import PASSWORD, open_city
from support.tcp_control import tcp_control
from typer.testing import CliRunner

from gateway.cli import app
from gateway.security_command import MAX_WORDING_CHARS


async def command(url, *arguments, expect=0):
    """Run in a thread: it has a loop of its own."""
    environment = {"CUSTOS_PASSWORD": PASSWORD, "COLUMNS": "200"}
    given = [str(part) for part in (*arguments, "--url", url)]
    result = await asyncio.to_thread(CliRunner().invoke, app, given, env=environment)
    assert result.exit_code == expect, (arguments, result.output, result.exception)
    return result.stdout if expect == 0 else result.stderr


async def test_a_record_loses_what_is_about_a_person(tmp_path):
    async with open_city(tmp_path) as city, tcp_control(city) as url:
        await city.grant()
        await city.watch("urban-operator")
        page = await city.call("auditor", "GET", "/audit/records?purpose=audit&actor=urban-operator")
        seq = page["items"][0]["seq"]
        erase = ("audit", "erase", seq, "--field", "actor_name", "--field", "remote", "--reason", "本人申请")
        erase += ("--purpose", "audit", "--user")
        assert "error access_denied" in await command(url, *erase, "auditor", expect=2)
        assert await command(url, *erase, "security") == ""
        assert "error erasure_refused" in await command(url, *erase, "security", expect=2)
        (erasure,) = await city.records(kind="erasure")
        assert erasure.detail == {"seq": seq, "fields": ["actor_name", "remote"]}
        assert erasure.content.endswith("本人申请")


async def test_an_undertaking_is_shown_and_published(tmp_path):
    zh, en = tmp_path / "zh.txt", tmp_path / "en.txt"
    zh.write_text("谁使用，谁负责。\n第二条\n")
    en.write_text("I look with care.\n")
    async with open_city(tmp_path / "city") as city, tcp_control(city) as url:
        show = ("policy", "undertaking", "--user", "security")
        assert (await command(url, *show)).startswith("version 1\n\n本系统遵循")
        publish = (*show, "--zh", zh, "--en", en)
        published = json.loads(await command(url, *publish, "--json"))
        text = {"zh": "谁使用，谁负责。\n第二条", "en": "I look with care."}
        assert published == {"version": 2, "text": text}
        assert (await city.call("root", "GET", "/undertaking"))["text"] == text
        nobody = ("policy", "undertaking", "--zh", zh, "--en", en, "--user", "root")
        assert "error access_denied" in await command(url, *nobody, expect=2)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "file_unreadable"),
        (b"\xff", "file_unreadable"),
        (b"a" * MAX_WORDING_CHARS, "gateway_unreachable"),
        (b"a" * (MAX_WORDING_CHARS + 1), "file_unreadable"),
    ],
)
async def test_a_wording_is_a_text(tmp_path, content, code):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    publish = ("policy", "undertaking", "--user", "security", "--zh", path, "--en", path)
    assert f"error {code}" in await command("http://127.0.0.1:1", *publish, expect=2)


async def test_both_wordings_are_published(tmp_path):
    alone = ("policy", "undertaking", "--user", "security", "--zh", tmp_path / "zh")
    assert "error usage" in await command("http://127.0.0.1:1", *alone, expect=2)
