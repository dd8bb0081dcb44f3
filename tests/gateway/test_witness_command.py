"""`custos witness` and `custos audit rotate-key` against a gateway."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.controls import PASSWORD, open_city
from support.tcp_control import tcp_control
from typer.testing import CliRunner

from gateway.audit.heads import PUBLIC_KEY_FILE, Signer
from gateway.cli import app

ROOT = Path(__file__).parents[2]


async def run(*arguments):
    return await asyncio.to_thread(CliRunner().invoke, app, [str(part) for part in arguments])


async def test_once_is_for_scripts(tmp_path):
    key, state = tmp_path / "city" / "data" / PUBLIC_KEY_FILE, tmp_path / "heads.jsonl"
    async with open_city(tmp_path / "city") as city, tcp_control(city) as url:
        ask = ("witness", url, "--key", key, "--state", state, "--once")
        result = await run(*ask)
        assert (result.exit_code, "records are witnessed" in result.output) == (0, True), result.output
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        person = ("--url", url, "--user", "security", "--password-file", password)
        rotated = await run("audit", "rotate-key", *person, "--json")
        assert rotated.exit_code == 0, rotated.output
        public_key = json.loads(rotated.output)["public_key"]
        result = await run(*ask, "--json")
        assert (result.exit_code, json.loads(result.output)["last_error"]) == (0, None)
        words = await run("audit", "rotate-key", *person)
        assert (words.exit_code, public_key in words.output) == (0, False)
        # somebody else's key
        other = Signer.generate(city.services.store.verifier.origin).verifier.to_text()
        result = await run("witness", url, "--key", other, "--state", tmp_path / "new", "--once", "--json")
        lines = [json.loads(line) for line in result.output.splitlines()]
        assert (result.exit_code, lines[0]["type"], lines[0]["code"]) == (1, "alarm", "bad_signature")
        assert not (tmp_path / "new").exists()
        result = await run("witness", url, "--key", other, "--state", state, "--once")
        assert (result.exit_code, "witness_state" in result.output + result.stderr) == (2, True)
    result = await run(*ask)
    assert result.exit_code == 1, result.output
    held = await run("audit", "verify", "--data", tmp_path / "city" / "data", "--head", state, "--json")
    assert held.exit_code == 0, held.output


@pytest.mark.parametrize("listen", ["1234", "host:", "host:x", "host:65536", ":1"])
async def test_where_to_listen_is_checked(tmp_path, listen):
    result = await run("witness", "http://h", "--key", "k", "--state", tmp_path / "s", "--listen", listen)
    assert (result.exit_code, "HOST:PORT" in result.stderr) == (2, True)


async def test_it_serves_until_it_is_ended(tmp_path):
    """A process of its own, which nobody need restart for an alarm, here because the gateway is gone."""
    key = tmp_path / "city" / "data" / PUBLIC_KEY_FILE
    async with open_city(tmp_path / "city"):
        pass
    command = [
        "witness",
        "http://127.0.0.1:1",
        "--key",
        key,
        "--state",
        tmp_path / "s",
        "--listen",
        "127.0.0.1:0",
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *map(str, command),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
    )
    try:
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode().split()
            status = await run("audit", "verify", "--data", key.parent, "--head", f"{line[-1]}/heads")
            # it holds nothing, and says so
            assert (status.exit_code, "no signed heads" in status.stderr) == (2, True)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
