"""A start beside a witness: an older copy of everything was restored, and only somebody else can know."""

import base64
import shutil
import socket
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from aiohttp import web
from support.controls import Clock, open_city
from typer.testing import CliRunner
from yarl import URL

from gateway.audit.heads import HEADS_FILE, Signer
from gateway.audit.key_history import PUBLIC_KEY_DETAIL
from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.bounded_fetch import fetching
from gateway.cli import app
from gateway.settings import LedgerSettings
from gateway.witness.server import held_heads, serving
from gateway.witness.source import GatewaySource
from gateway.witness.state import WitnessState
from gateway.witness.witness import Witness
from gateway.witnessed import witnessed_ahead


@asynccontextmanager
async def witnessing(city, file):
    state = WitnessState(file, city.services.store.verifier)
    async with fetching(aiohttp.UnixConnector(str(city.folder / "control-http.sock"))) as http:
        source = GatewaySource(http, URL("http://custos"))
        witness = Witness(source, state, Clock(), lambda: 0.0, lambda _: None)
        await witness.pull()
        assert witness.last_error is None
        yield witness


@asynccontextmanager
async def answering(content):
    """A witness that says just that."""

    async def heads(_):
        return web.Response(body=content)

    application = web.Application()
    application.router.add_get("/heads", heads)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/heads"
    finally:
        await runner.cleanup()


async def rotate(store):
    new = Signer.generate(store.verifier.origin)
    event = AuditEvent(
        kind=AuditKind.SIGNING_KEY_CHANGED,
        outcome=Outcome.OK,
        content="change the key",
        detail={PUBLIC_KEY_DETAIL: new.verifier.to_text()},
    )

    async def unit(work):
        work.change_key(event, new)

    await store.run(unit)


async def test_an_older_copy_of_everything_freezes_all_grants(tmp_path):
    """The heads beside the database are restored with it; a key was changed in between."""
    folder = tmp_path / "city"
    async with open_city(folder) as city:
        await city.grant()
    shutil.copytree(folder / "data", tmp_path / "backup")
    async with open_city(folder) as city:
        await rotate(city.services.store)
        await city.login("auditor")
        async with witnessing(city, tmp_path / "witness") as witness:
            held = msgspec.json.encode(held_heads(witness))
            root = base64.b64encode(witness.state.newest.head.root).decode()
            async with serving(witness, "127.0.0.1", 0) as port:
                assert await witnessed_ahead(city.services.store, [f"http://127.0.0.1:{port}/heads"]) is None
    shutil.rmtree(folder / "data")
    shutil.copytree(tmp_path / "backup", folder / "data")
    async with answering(held) as address:
        settings = {"ledger": LedgerSettings(witnesses=(address,))}
        async with open_city(folder, **settings) as city:
            assert await witnessed_ahead(city.services.store, [address]) == root
            (record,) = await city.records(kind="policy_frozen")
            assert record.reason == "ledger_went_back"
            frozen = len(await city.records(kind="policy_frozen"))
        async with open_city(folder, **settings) as city:
            # for what the owners answered once, no start freezes again
            assert len(await city.records(kind="policy_frozen")) == frozen


async def test_a_witness_can_do_no_more_than_say_nothing(tmp_path):
    async with open_city(tmp_path / "city") as city:
        store = city.services.store
        stranger = Signer.generate(store.verifier.origin)
        forged = stranger.sign(10_000, 9_999, bytes(32), 5).to_json()
        for content in (
            b"",
            b"\xff",
            b"[]",
            b"[" * 1_000_000,
            b'{"items":[' + b"[" * 1_000_000,
            b'{"items":[{}]}',
            b'{"items":[]}',
            msgspec.json.encode({"items": [forged], "keys": []}),
            msgspec.json.encode({"items": [], "keys": [{"leaf": "", "path": [], "head": forged}]}),
        ):
            async with answering(content) as address:
                assert await witnessed_ahead(store, [address]) is None
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        nobody = f"http://127.0.0.1:{port}/heads"
        assert await witnessed_ahead(store, [nobody, "http://127.0.0.1:1/"]) is None


async def test_one_of_two_witnesses_is_enough(tmp_path):
    async with open_city(tmp_path / "city") as city:
        store = city.services.store
        own = Signer.load(city.folder / "data", store.verifier.origin)
        newest = (await store.head()).head
        other = own.sign(newest.size, newest.previous_size, bytes(32), newest.signed_at)
        ahead = own.sign(newest.size + 1000, newest.size, bytes(32), newest.signed_at)
        for wrong in (other, ahead):
            page = msgspec.json.encode({"items": [wrong.to_json()]})
            async with answering(b'{"items":[]}') as good, answering(page) as bad:
                root = await witnessed_ahead(store, [good, bad])
            assert root == base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize("served", [True, False])
async def test_verify_takes_the_heads_from_an_address(tmp_path, served):
    import asyncio

    folder = tmp_path / "city"
    async with open_city(folder):
        pass
    newest = (folder / "data" / HEADS_FILE).read_bytes().splitlines()[-1]
    async with answering(b'{"items":[%b]}' % newest if served else b"nothing") as address:
        arguments = ["audit", "verify", "--data", str(folder / "data"), "--head", address, "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == (0 if served else 2), result.output
