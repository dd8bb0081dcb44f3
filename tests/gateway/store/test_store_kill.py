"""kill -9 in the middle: nothing acknowledged is lost, nothing is half written, the ledger verifies."""

import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.audit.records import parse
from gateway.audit.verify import verify_data_folder

ROOT = Path(__file__).parents[3]
WRITER = ROOT / "tests" / "support" / "ledger_writer.py"


def write_and_kill(folder: Path, name: str, after: int) -> list[str]:
    """Let a writer run until it has acknowledged so many units; return all that it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(folder), name],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        try:
            acknowledged = [lines.readline() for _ in range(after)]
        finally:
            process.kill()
        acknowledged += lines.readlines()
    return [line.strip() for line in acknowledged if line.endswith("\n")]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost(tmp_path: Path, kills: int) -> None:
    random_ = random.Random(kills)
    acknowledged: set[str] = set()
    for turn in range(kills):
        new = write_and_kill(tmp_path, f"w{turn}", random_.randrange(1, 60))
        assert new
        acknowledged.update(new)
        report = verify_data_folder(tmp_path)
        assert (report.findings, report.status) == ([], "unwitnessed")
    with closing(sqlite3.connect(tmp_path / "custos.db")) as connection:
        rows = {row[0] for row in connection.execute("SELECT id FROM departments")}
        leaves = connection.execute("SELECT leaf, disclosures FROM audit_records")
        recorded = {parse(*row).event.content for row in leaves}
    assert acknowledged <= rows == recorded
