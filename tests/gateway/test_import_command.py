"""`custos import` and `custos export` against a running control."""

import asyncio
import json

from support.catalogue_files import csv_file, new_cameras
from support.controls import PASSWORD, open_city
from support.tcp_control import tcp_control
from typer.testing import CliRunner

from gateway.cli import app


async def run_cli(*arguments, password=PASSWORD):
    """`custos ...` to its end, in a thread: (exit code, stdout, stderr)."""
    environment = {"CUSTOS_PASSWORD": password, "COLUMNS": "200"}
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
    return result.exit_code, result.stdout, result.stderr


async def test_a_file_goes_in_and_comes_out(tmp_path):
    file = tmp_path / "cameras.csv"
    file.write_bytes(csv_file(*new_cameras(3), password="canary-77aa"))
    async with open_city(tmp_path) as city, tcp_control(city) as url:
        login = ("--url", url, "--user", "traffic-admin")
        code, out, err = await run_cli("import", str(file), "--dry-run", *login)
        assert (code, "3 created" in out, "would be" in out) == (0, True, True), err
        code, out, err = await run_cli("import", str(file), "--json", *login)
        assert (code, json.loads(out)["created"]) == (0, 3), err
        exported = tmp_path / "out.jsonl"
        code, _, err = await run_cli("export", "--format", "jsonl", "--output", str(exported), *login)
        assert code == 0, err
        content = exported.read_text()
        assert len(content.splitlines()) == 5
        assert "canary" not in content
        assert exported.stat().st_mode & 0o777 == 0o600
        code, out, err = await run_cli("import", str(exported), *login)
        assert (code, "5 unchanged" in out) == (0, True), err
        code, _, err = await run_cli("export", "--output", str(exported), *login)
        assert (code, "file_unwritable" in err) == (2, True)
        code, out, _ = await run_cli("export", *login)
        assert (code, out.count("\n")) == (0, 6)


async def test_bad_lines_are_listed_and_the_exit_code_says_so(tmp_path):
    file = tmp_path / "cameras.csv"
    file.write_bytes(csv_file(*new_cameras(60), point_class="[red]9"))
    async with open_city(tmp_path) as city, tcp_control(city) as url:
        login = ("--url", url, "--user", "traffic-admin")
        code, out, err = await run_cli("import", str(file), *login)
        assert code == 1, err
        assert "60 errors, 10 of them not shown: nothing was imported" in out
        assert out.count("invalid_field") == 50
        code, out, _ = await run_cli("import", str(file), "--json", *login)
        assert (code, json.loads(out)["error_count"]) == (1, 60)
        code, _, err = await run_cli("import", str(file), *login, password="not the password")
        assert (code, "invalid_credentials" in err) == (2, True)
        assert "not the password" not in err


async def test_what_cannot_be_tried_is_said(tmp_path):
    (tmp_path / "cameras.txt").write_text("")
    for name, expected in (("cameras.txt", "file_type_unknown"), ("missing.csv", "file_unreadable")):
        code, _, err = await run_cli("import", str(tmp_path / name), "--user", "nobody")
        assert (code, expected in err) == (2, True), err
