"""kill -9 in the middle: nothing acknowledged is lost, nothing is half written, the ledger verifies."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from support.campaigns import TIMEOUT_SECONDS, length
from support.ledger_writer import kill_often

from gateway.audit.records import parse
from gateway.audit.verify import verify_data_folder

CAMPAIGN = pytest.param(length(200, 12), marks=[pytest.mark.slow, pytest.mark.timeout(TIMEOUT_SECONDS)])
LEDGERS = 2
"""At a time, each with its share of the kills."""


@pytest.mark.parametrize("kills", [4, CAMPAIGN])
def test_nothing_acknowledged_is_lost(tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / f"ledger{number}" for number in range(LEDGERS)]
    with ThreadPoolExecutor(LEDGERS) as pool:
        told = list(pool.map(lambda folder: kill_often(folder, kills // LEDGERS), folders))
    records = 0
    for folder, acknowledged in zip(folders, told, strict=True):
        report = verify_data_folder(folder)
        assert (report.findings, report.status) == ([], "unwitnessed")
        with closing(sqlite3.connect(folder / "custos.db")) as connection:
            rows = {row[0] for row in connection.execute("SELECT id FROM departments")}
            leaves = connection.execute("SELECT leaf, disclosures FROM audit_records")
            recorded = {parse(*row).event.content for row in leaves}
        assert acknowledged <= rows == recorded
        records += len(acknowledged)
    with capsys.disabled():
        print(f"\n{kills} kills, {records} records acknowledged, none lost")  # noqa: T201
