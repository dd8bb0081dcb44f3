"""A witness beside a real gateway: what it holds, what makes it alarm, and that it goes on."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
import msgspec
import pytest
from support.controls import Clock, open_city
from yarl import URL

from gateway.audit.heads import MAX_HEAD_BYTES, PUBLIC_KEY_FILE, Signer, parse_head
from gateway.audit.verify import load_public_key, verify_data_folder
from gateway.bounded_fetch import FetchError, fetching
from gateway.witness import state
from gateway.witness.server import serving
from gateway.witness.source import GatewaySource
from gateway.witness.state import Alarm, WitnessState, WitnessStateError
from gateway.witness.witness import SILENCE_SECONDS, Witness


@dataclass
class Elsewhere:
    """A witness in another department, with a clock of the test's, and what it told."""

    folder: object
    now: float = 1000.0
    told: list = field(default_factory=list)
    twist: object = None

    @asynccontextmanager
    async def beside(self, city):
        """Started, or started again, with the files that it has."""
        key = load_public_key(str(city.folder / "data" / PUBLIC_KEY_FILE))
        state = WitnessState(self.file, key)
        connector = aiohttp.UnixConnector(str(city.folder / "control-http.sock"))
        async with fetching(connector) as http:
            source = GatewaySource(http, URL("http://custos"))
            if self.twist is not None:
                source = self.twist(source)
            yield Witness(source, state, Clock(), lambda: self.now, self.told.append)

    async def pull(self, city):
        """Once, as `custos witness --once`."""
        async with self.beside(city) as witness:
            await witness.pull()
            return witness

    @property
    def file(self):
        return self.folder / "witnessed.jsonl"

    @property
    def held(self):
        return [parse_head(line) for line in self.file.read_bytes().splitlines()]

    @property
    def alarms(self):
        return [(type(event).__name__, event.code) for event in self.told]


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "another department"
    folder.mkdir()
    return Elsewhere(folder)


async def something(city):
    """A record or two."""
    await city.login("auditor")


async def test_it_holds_each_new_head_once(tmp_path, elsewhere):
    async with open_city(tmp_path / "city") as city:
        for _ in range(2):
            await elsewhere.pull(city)
        await something(city)
        witness = await elsewhere.pull(city)
        newest = await city.services.store.head()
    assert elsewhere.held[-1] == newest
    assert len(elsewhere.held) == 2
    assert (elsewhere.told, witness.last_error) == ([], None)
    report = verify_data_folder(tmp_path / "city" / "data", elsewhere.file)
    assert report.witnessed_size == newest.head.size


async def test_a_rollback_and_the_fork_that_follows(tmp_path, elsewhere):
    """An older copy of the data folder is restored; the gateway goes on from there."""
    folder = tmp_path / "city"
    async with open_city(folder) as city:
        await something(city)
    shutil.copytree(folder / "data", tmp_path / "backup")
    async with open_city(folder) as city:
        for _ in range(3):
            await something(city)
        await elsewhere.pull(city)
        before = city.services.store
        honest = await before.head()
    shutil.rmtree(folder / "data")
    shutil.copytree(tmp_path / "backup", folder / "data")
    async with open_city(folder) as city, elsewhere.beside(city) as witness:
        await witness.pull()
        assert elsewhere.alarms == [("Alarm", "rollback")]
        await witness.pull()
        assert len(elsewhere.told) == 1
        while (await city.services.store.head()).head.size <= honest.head.size:
            await something(city)
        await witness.pull()
        assert elsewhere.alarms == [("Alarm", "rollback"), ("Alarm", "fork")]
        shown = await city.services.store.head()
    fork = elsewhere.told[-1]
    assert (fork.held_size, parse_head(msgspec.json.encode(fork.head))) == (honest.head.size, shown)
    assert elsewhere.held == [honest]
    # whoever verifies the restored database with what the witness holds finds it too
    assert verify_data_folder(folder / "data").exit_code == 3
    assert verify_data_folder(folder / "data", elsewhere.file).exit_code == 1


@dataclass
class Twisted:
    """A gateway whose answers somebody has changed on the way, or who signs what is not."""

    source: object
    newest_is: object = None
    proof: object = None
    error: Exception | None = None

    async def newest(self):
        if self.error is not None:
            raise self.error
        newest = await self.source.newest()
        return newest if self.newest_is is None else self.newest_is(newest)

    async def rotations(self, after):
        return await self.source.rotations(after)

    async def consistency(self, old_size, size):
        path = await self.source.consistency(old_size, size)
        return path if self.proof is None else self.proof(path)


@asynccontextmanager
async def twisted(tmp_path, elsewhere):
    """A city, its witness, and the source between them."""
    made = []

    def twist(source):
        made.append(Twisted(source))
        return made[-1]

    elsewhere.twist = twist
    async with open_city(tmp_path / "city") as city, elsewhere.beside(city) as witness:
        await witness.pull()
        assert elsewhere.told == []
        yield city, witness, made[0]


async def test_two_ledgers_of_one_size(tmp_path, elsewhere):
    """Whoever has the key shows somebody else another ledger."""
    async with twisted(tmp_path, elsewhere) as (city, witness, source):
        signer = Signer.load(city.folder / "data", city.services.store.verifier.origin)

        def other(newest):
            head = newest.head.head
            return replace(newest, head=signer.sign(head.size, head.previous_size, bytes(32), head.signed_at))

        source.newest_is = other
        await witness.pull()
        assert elsewhere.alarms == [("Alarm", "fork")]
        source.newest_is = None
        await witness.pull()
        assert elsewhere.alarms == [("Alarm", "fork"), ("AlarmOver", "fork")]
        evidence = parse_head(msgspec.json.encode(elsewhere.told[0].head))
        assert city.services.store.verifier.verify(evidence)
        assert witness.state.alarms[0].code == "fork"


async def test_a_proof_that_shows_nothing(tmp_path, elsewhere):
    async with twisted(tmp_path, elsewhere) as (city, witness, source):
        await something(city)
        source.proof = lambda path: [*path, bytes(32)]
        await witness.pull()
        assert elsewhere.alarms == [("Alarm", "fork")]
        assert len(elsewhere.held) == 1
        source.proof = None
        await witness.pull()
        assert elsewhere.alarms[-1] == ("AlarmOver", "fork")
        assert len(elsewhere.held) == 2


async def test_another_key_or_another_ledger(tmp_path, elsewhere):
    async with twisted(tmp_path, elsewhere) as (city, witness, source):
        origin = city.services.store.verifier.origin
        for signer in (Signer.generate(origin), Signer.generate("custos/other")):
            source.newest_is = lambda newest, signer=signer: replace(
                newest, head=signer.sign(10_000, 9_999, bytes(32), 1)
            )
            await witness.pull()
            assert elsewhere.told[-1].code == "bad_signature"
            source.newest_is = None
            await witness.pull()
        source.newest_is = lambda newest: replace(newest, alive=replace(newest.alive, time=2**53))
        await witness.pull()
        assert elsewhere.told[-1].code == "bad_signature"
        assert len(elsewhere.held) == 1


async def test_silence(tmp_path, elsewhere):
    """No answer, an answer that somebody kept, and then a new one."""
    async with twisted(tmp_path, elsewhere) as (city, witness, source):
        kept = await source.newest()
        for error in (FetchError("connection refused"), None):
            source.error, source.newest_is = error, lambda _, kept=kept: kept
            await witness.pull()
            elsewhere.now += SILENCE_SECONDS - 1
            await witness.pull()
            assert not witness.state.active
            elsewhere.now += 1
            await witness.pull()
            assert set(witness.state.active) == {"silence"}
            source.error = source.newest_is = None
            city.clock.advance(600)
            await witness.pull()
            assert not witness.state.active
            kept = await source.newest()
            await witness.pull()
    assert elsewhere.alarms == [("Alarm", "silence"), ("AlarmOver", "silence")] * 2


async def test_a_gateway_where_nothing_happens_is_not_silent(tmp_path, elsewhere):
    async with twisted(tmp_path, elsewhere) as (city, witness, _source):
        for _ in range(4):
            city.clock.advance(60)
            elsewhere.now += SILENCE_SECONDS - 1
            await witness.pull()
    assert elsewhere.told == []
    assert len(elsewhere.held) == 1


async def test_it_follows_the_keys_also_after_a_restart(tmp_path, elsewhere):
    async with open_city(tmp_path / "city") as city:
        await elsewhere.pull(city)
        for _ in range(2):
            await _rotate(city)
            await something(city)
            await elsewhere.pull(city)
        await _rotate(city)
        witness = await elsewhere.pull(city)
        await something(city)
        fresh = Elsewhere(elsewhere.folder / "fresh")
        fresh.folder.mkdir()
        late = await fresh.pull(city)
        key = late.state.keys.first
    assert elsewhere.told == fresh.told == []
    assert len(witness.state.rotations) == len(late.state.rotations) == 3
    assert WitnessState(elsewhere.file, key).keys.changed_at == late.state.keys.changed_at
    # the head of each rotation is held, signed by the key that it retires
    assert {r.head for r in witness.state.rotations} <= set(elsewhere.held)


async def _rotate(city):
    from gateway.audit.key_history import PUBLIC_KEY_DETAIL
    from gateway.audit.records import AuditEvent, AuditKind, Outcome

    store = city.services.store
    new = Signer.generate(store.verifier.origin)
    detail = {PUBLIC_KEY_DETAIL: new.verifier.to_text()}
    event = AuditEvent(
        kind=AuditKind.SIGNING_KEY_CHANGED, outcome=Outcome.OK, content="change the key", detail=detail
    )

    async def unit(work):
        work.change_key(event, new)

    await store.run(unit)


async def test_a_retired_key_signs_nothing_more(tmp_path, elsewhere):
    async with twisted(tmp_path, elsewhere) as (city, witness, source):
        old = Signer.load(city.folder / "data", city.services.store.verifier.origin)
        await _rotate(city)
        await something(city)

        def signed_by_the_old(newest):
            head = newest.head.head
            return replace(newest, head=old.sign(head.size, head.previous_size, head.root, head.signed_at))

        source.newest_is = signed_by_the_old
        await witness.pull()
        (alarm,) = elsewhere.told
        assert alarm.code == "bad_signature"
        assert "given up" in alarm.detail


async def test_a_restart_forgets_no_alarm_and_takes_no_torn_line(tmp_path, elsewhere):
    async with twisted(tmp_path, elsewhere) as (city, witness, source):
        await something(city)
        source.proof = lambda _: []
        await witness.pull()
        for path in (elsewhere.file, elsewhere.file.with_name("witnessed.jsonl.log")):
            with path.open("ab") as file:
                file.write(b'{"type":"over","code":"fo')
        again = WitnessState(elsewhere.file, city.services.store.verifier)
        assert set(again.active) == {"fork"}
        assert again.held_size == witness.state.held_size
        source.proof = None
        await witness.pull()
        assert len(elsewhere.held) == 2
        assert not WitnessState(elsewhere.file, city.services.store.verifier).active


async def test_files_that_are_not_its_own_are_refused(tmp_path, elsewhere):
    async with open_city(tmp_path / "city") as city:
        await elsewhere.pull(city)
        key = city.services.store.verifier
    with pytest.raises(WitnessStateError):
        WitnessState(elsewhere.file, Signer.generate(key.origin).verifier)
    whole = elsewhere.file.read_bytes()
    elsewhere.file.write_bytes(b"{}\n" + whole)
    with pytest.raises(WitnessStateError):
        WitnessState(elsewhere.file, key)
    elsewhere.file.write_bytes(whole)
    for line in (b"{}\n", b"\xff\n", b"x" * 70_000):
        elsewhere.file.with_name("witnessed.jsonl.log").write_bytes(line)
        with pytest.raises(WitnessStateError):
            WitnessState(elsewhere.file, key)


async def test_a_disk_that_takes_nothing_alarms_and_holds_nothing(tmp_path, elsewhere, monkeypatch):
    async with twisted(tmp_path, elsewhere) as (city, witness, _):
        await something(city)

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("gateway.witness.state.append_line", full)
            await witness.pull()
            assert elsewhere.alarms == [("Alarm", "state_not_written")]
            assert len(elsewhere.held) == witness.state.heads.maxlen - 499
        await witness.pull()
        assert elsewhere.alarms[-1] == ("AlarmOver", "state_not_written")
        assert len(elsewhere.held) == 2


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_rotation_that_cannot_be_kept_is_followed_later(tmp_path, elsewhere, monkeypatch, is_written):
    """Else the heads that it holds would after a restart be of a key that it does not know."""
    async with open_city(tmp_path / "city") as city, elsewhere.beside(city) as witness:
        await _rotate(city)
        await something(city)
        append = state.append_line

        def fails(path, *rest):
            if path.suffix == ".log":
                if is_written:
                    append(path, *rest)
                raise OSError(5, "Input/output error")
            append(path, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(state, "append_line", fails)
            await witness.pull()
        assert elsewhere.alarms == [("Alarm", "state_not_written")]
        await witness.pull()
        assert witness.last_error is None
        key = witness.state.keys.first
    kept = WitnessState(elsewhere.file, key)
    assert (len(kept.rotations), kept.newest) == (1, witness.state.newest)


async def test_it_shows_what_it_holds(tmp_path, elsewhere):
    async with twisted(tmp_path, elsewhere) as (city, witness, source):
        await something(city)
        await witness.pull()
        async with serving(witness, "127.0.0.1", 0) as port, fetching() as http:
            base = f"http://127.0.0.1:{port}"
            async with http.get(f"{base}/heads") as answer:
                page = await answer.text()
            async with http.get(f"{base}/status") as answer:
                good = await answer.json()
            source.error = FetchError("gone")
            await witness.pull()
            async with http.get(f"{base}/status") as answer:
                bad = await answer.json()
        (elsewhere.folder / "page").write_text(page)
        sizes = [item["size"] for item in json.loads(page)["items"]]
        assert sizes == [head.head.size for head in reversed(elsewhere.held)]
        assert (good["ok"], good["held_size"]) == (True, sizes[0])
        assert (bad["ok"], bad["last_error"]) == (False, "gone")
    report = verify_data_folder(tmp_path / "city" / "data", elsewhere.folder / "page")
    assert report.witnessed_size == sizes[0]


async def test_answers_that_are_none(tmp_path, elsewhere):
    """Garbage, an endless answer, a redirect, a failure: an error, and nothing else."""
    from aiohttp import web

    from gateway.bounded_fetch import MAX_ANSWER_BYTES

    bodies = iter([b"\xff", b"[]", b'{"items":[{}],"alive":null}', b"x" * (MAX_ANSWER_BYTES + 1)])

    async def answer(_):
        body = next(bodies, None)
        if body is None:
            raise web.HTTPFound("http://127.0.0.1:1/")
        return web.Response(body=body)

    app = web.Application()
    app.router.add_get("/api/v1/audit/heads", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with fetching() as http:
            source = GatewaySource(http, URL(f"http://127.0.0.1:{port}"))
            for _ in range(5):
                with pytest.raises(FetchError):
                    await source.newest()
        async with fetching() as http:
            with pytest.raises(FetchError):
                await GatewaySource(http, URL("http://127.0.0.1:1")).newest()
    finally:
        await runner.cleanup()


async def test_an_exact_limit_is_taken(tmp_path):
    from gateway.audit.line_files import append_line, last_lines

    path = tmp_path / "lines"
    append_line(path, b"a" * (MAX_HEAD_BYTES - 1) + b"\n", MAX_HEAD_BYTES)
    path.write_bytes(path.read_bytes() + b"torn")
    append_line(path, b"b\n", MAX_HEAD_BYTES)
    assert last_lines(path, 2) == [b"b"]
    assert last_lines(path, 3) == [b"b"]
    assert [len(line) for line in last_lines(path, MAX_HEAD_BYTES + 2)] == [MAX_HEAD_BYTES - 1, 1]
    assert last_lines(tmp_path / "none", 10) == []


async def test_it_goes_on_by_itself(tmp_path, elsewhere):
    async with open_city(tmp_path / "city") as city, elsewhere.beside(city) as witness:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(witness.run(0.01))
            await city.until(lambda: len(witness.state.heads) == 1)
            await something(city)
            await city.until(lambda: len(witness.state.heads) == 2)
            running.cancel()
    assert not any(isinstance(event, Alarm) for event in elsewhere.told)
