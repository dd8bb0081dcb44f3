"""Tickets of RTSP viewers: as a password, and again from the same address until the first packet."""

import itertools

import pytest
from support.controls import open_city

from gateway.messages import DigestProof, End, Redeem, Redeemed, Refused, SessionOver, Streaming
from streams.wire.digest import (
    Algorithm,
    Credentials,
    DigestChallenge,
    authorize,
    parse_authorization,
)

_numbers = itertools.count(1000)


async def _redeem(worker, session, *, ticket="", remote="192.0.2.7", digest=None, protocol="rtsp"):
    number = next(_numbers)
    worker.send(
        Redeem(
            request=number, session=session, ticket=ticket, protocol=protocol, remote=remote, digest=digest
        )
    )
    return await worker.wait_for(Redeemed | Refused, lambda answer: answer.request == number)


def _proof(session, ticket, *, algorithm=Algorithm.MD5, qop=True, method="DESCRIBE", uri="rtsp://h/live/x"):
    challenge = DigestChallenge(realm="Custos", nonce="n", algorithm=algorithm, has_qop=qop)
    header = authorize(
        challenge,
        Credentials(username=session, password=ticket),
        method,
        uri,
        nonce_count=1,
        client_nonce="c",
    )
    parsed = parse_authorization(header)
    return DigestProof(
        algorithm=str(algorithm),
        realm=parsed.realm,
        nonce=parsed.nonce,
        method=method,
        uri=parsed.uri,
        response=parsed.response,
        qop="auth" if qop else None,
        nc=parsed.nonce_count,
        cnonce=parsed.client_nonce,
    )


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("qop", [True, False])
async def test_a_digest_made_with_the_ticket_opens_the_session(tmp_path, algorithm, qop):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        proof = _proof(opened["id"], opened["media"]["ticket"], algorithm=algorithm, qop=qop)
        assert isinstance(await _redeem(worker, opened["id"], digest=proof), Redeemed)


async def test_a_digest_made_with_anything_else_opens_nothing(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened, other = [await city.watch("urban-operator") for _ in range(2)]
        ticket = opened["media"]["ticket"]
        for proof in (
            _proof(opened["id"], "wrong"),
            _proof(opened["id"], other["media"]["ticket"]),
            _proof(other["id"], ticket),
            DigestProof(algorithm="MD4", realm="r", nonce="n", method="DESCRIBE", uri="u", response="0" * 32),
        ):
            answer = await _redeem(worker, opened["id"], digest=proof)
            assert isinstance(answer, Refused)
            assert answer.code == "ticket_invalid"
        assert isinstance(await _redeem(worker, opened["id"], ticket=ticket), Redeemed)


async def test_a_player_may_come_again_from_its_address_until_the_first_packet(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        one, two = await city.worker(0), await city.worker(1)
        opened = await city.watch("urban-operator")
        session, ticket = opened["id"], opened["media"]["ticket"]
        assert isinstance(await _redeem(one, session, ticket=ticket), Redeemed)
        assert isinstance(await _redeem(one, session, ticket=ticket, remote="192.0.2.8"), Refused)
        assert isinstance(await _redeem(one, session, ticket=ticket, protocol="flv"), Refused)
        assert isinstance(await _redeem(two, session, ticket=ticket), Redeemed)
        assert (await one.wait_for(End, lambda end: end.session == session)).reason == "replaced"
        two.send(Streaming(session=session))
        await two.settled()
        assert isinstance(await _redeem(two, session, ticket=ticket), Refused)
        assert isinstance(await _redeem(two, session, digest=_proof(session, ticket)), Refused)
        assert city.services.live.get(session).state == "active"


async def test_a_player_that_asked_and_left_may_come_again(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        session, ticket = opened["id"], opened["media"]["ticket"]
        await _redeem(worker, session, ticket=ticket)
        worker.send(
            SessionOver(session=session, reason="lost", lost=True, bytes_sent=0, dropped_access_units=0)
        )
        await worker.settled()
        assert isinstance(await _redeem(worker, session, ticket=ticket), Redeemed)
        assert city.services.live.get(session).state == "active"


async def test_a_ticket_of_rtsp_expires_like_any(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        session, ticket = opened["id"], opened["media"]["ticket"]
        await _redeem(worker, session, ticket=ticket)
        city.clock.advance(30)
        assert isinstance(await _redeem(worker, session, ticket=ticket), Refused)


async def test_another_workers_word_does_not_use_up_a_ticket(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        session, ticket = opened["id"], opened["media"]["ticket"]
        await _redeem(worker, session, ticket=ticket)
        (await city.worker(5)).send(Streaming(session=session))
        assert isinstance(await _redeem(worker, session, ticket=ticket), Redeemed)


async def test_a_ticket_is_shown_nowhere(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        opened = await city.watch("urban-operator")
        assert opened["media"]["ticket"] not in repr(city.services.live.get(opened["id"]))
