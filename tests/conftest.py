"""Fixtures for every part of the tests."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL
from support.databases import create_database, create_template, start_or_skip

from gateway.store.store import StoreSettings


@pytest.fixture(scope="session")
def postgresql() -> Iterator[URL]:
    yield from start_or_skip()


@pytest.fixture(scope="session")
def postgresql_template(postgresql: URL) -> str:
    return asyncio.run(create_template(postgresql))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Every test that asks for it runs twice: on SQLite (None: a file in the data folder), on PostgreSQL."""
    if request.param == "sqlite":
        return None
    template = request.getfixturevalue("postgresql_template")
    return asyncio.run(create_database(request.getfixturevalue("postgresql"), template))


@pytest.fixture
def store_settings(tmp_path: Path, database_url: str | None) -> StoreSettings:
    return StoreSettings(tmp_path, url=database_url)
