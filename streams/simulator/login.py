"""How a simulated camera asks who a client is, and judges the answer (RFC 7617; RFC 2069 and 7616)."""

import hmac
from collections.abc import Collection, Sequence
from enum import StrEnum

from streams.errors import ProtocolError
from streams.wire.digest import (
    Algorithm,
    BasicChallenge,
    Challenge,
    Credentials,
    DigestChallenge,
    digest_ha1,
    parse_authorization,
    verify_digest,
)


class Login(StrEnum):
    """What a camera challenges with."""

    DIGEST_MD5 = "digest-md5"
    DIGEST_SHA256 = "digest-sha256"
    BASIC = "basic"

    def challenge(self, realm: str, nonce: str, *, has_qop: bool) -> Challenge:
        if self is Login.BASIC:
            return BasicChallenge(realm=realm)
        algorithm = Algorithm.SHA256 if self is Login.DIGEST_SHA256 else Algorithm.MD5
        return DigestChallenge(
            realm=realm,
            nonce=nonce,
            algorithm=algorithm,
            # Cameras that know only RFC 2069 do not name MD5.
            names_algorithm=algorithm is not Algorithm.MD5 or has_qop,
            has_qop=has_qop,
        )


def is_answered(
    challenges: Sequence[Challenge],
    authorization: str,
    expected: Credentials,
    method: str,
    uris: Collection[str],
) -> bool:
    """Whether the header answers one of the challenges with these credentials, for one of the addresses."""
    try:
        answer = parse_authorization(authorization)
    except ProtocolError:
        return False
    if isinstance(answer, Credentials):
        return any(isinstance(challenge, BasicChallenge) for challenge in challenges) and hmac.compare_digest(
            f"{answer.username}:{answer.password}".encode(),
            f"{expected.username}:{expected.password}".encode(),
        )
    return hmac.compare_digest(answer.username.encode(), expected.username.encode()) and any(
        isinstance(challenge, DigestChallenge)
        and verify_digest(
            answer, challenge, digest_ha1(challenge.algorithm, expected, challenge.realm), method, uris
        )
        for challenge in challenges
    )
