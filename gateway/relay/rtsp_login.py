"""Who logs in over RTSP: challenges that cannot be used elsewhere or later.

A nonce names when it was made and is signed for one connection (RFC 7616 §3.3), so nothing is stored for a
client that never answers. Viewers are known by the session's id and the ticket as password, which control
checks; encoders by their camera's own login.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from gateway.messages import DigestProof
from gateway.relay.publisher_login import is_login
from streams.errors import ProtocolError
from streams.wire.digest import (
    Algorithm,
    BasicChallenge,
    Challenge,
    Credentials,
    DigestAuthorization,
    DigestChallenge,
    digest_ha1,
    parse_authorization,
    verify_digest,
)
from streams.wire.rtsp import Headers, RtspRequest

REALM = "Custos"
NONCE_SECONDS = 60.0

_TIME_BYTES = 8
_MAC_BYTES = 16
_MICROSECONDS = 1_000_000
_CONNECTION_BYTES = 16
_NONCE = re.compile(rf"[0-9a-f]{{{2 * (_TIME_BYTES + _MAC_BYTES)}}}")


class Nonces:
    """Makes and checks the nonces of one connection. `key`: 32 secret bytes, the worker's for its life."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._clock = clock
        self._connection = secrets.token_bytes(_CONNECTION_BYTES)
        self._used = 0

    def issue(self) -> str:
        made = int(self._clock() * _MICROSECONDS).to_bytes(_TIME_BYTES)
        return (made + self._sign(made)).hex()

    def is_own(self, nonce: str) -> bool:
        """Whether it was made for this connection, however long ago. Never raises."""
        if not _NONCE.fullmatch(nonce):
            return False
        raw = bytes.fromhex(nonce)
        return hmac.compare_digest(raw[_TIME_BYTES:], self._sign(raw[:_TIME_BYTES]))

    def use(self, nonce: str) -> bool:
        """Whether it is ours, not older than NONCE_SECONDS and newer than the last one used. Never raises."""
        if not self.is_own(nonce):
            return False
        made = int(nonce[: 2 * _TIME_BYTES], 16)
        is_good = made > self._used and self._clock() - made / _MICROSECONDS <= NONCE_SECONDS
        if is_good:
            self._used = made
        return is_good

    def _sign(self, made: bytes) -> bytes:
        mac = hmac.digest(self._key, self._connection + made, hashlib.sha256)
        return mac[:_MAC_BYTES]


def challenges(nonces: Nonces, *, allows_basic: bool, is_stale: bool = False) -> Headers:
    """The headers of a 401. MD5 comes last: FFmpeg and live555 take the last that they read."""
    nonce = nonces.issue()
    offers: list[Challenge] = [
        DigestChallenge(realm=REALM, nonce=nonce, algorithm=algorithm, has_qop=True, is_stale=is_stale)
        for algorithm in (Algorithm.SHA256, Algorithm.MD5)
    ]
    if allows_basic:
        offers.insert(0, BasicChallenge(realm=REALM))
    return tuple(("WWW-Authenticate", str(offer)) for offer in offers)


def authorization_of(request: RtspRequest) -> DigestAuthorization | Credentials | None:
    """What the request proves, or None if it proves nothing that we can read."""
    value = request.header("Authorization")
    if value is None:
        return None
    try:
        return parse_authorization(value)
    except ProtocolError:
        return None


def is_about(authorization: DigestAuthorization, request: RtspRequest) -> bool:
    """Whether a digest was made for this request: its URL, or its path alone, as some clients sign."""
    return authorization.realm == REALM and authorization.uri in (request.url, _path_of(request.url))


def proof_of(authorization: DigestAuthorization, request: RtspRequest) -> DigestProof:
    """What control needs to check a viewer's digest."""
    return DigestProof(
        algorithm=str(authorization.algorithm),
        realm=authorization.realm,
        nonce=authorization.nonce,
        method=request.method,
        uri=authorization.uri,
        response=authorization.response,
        qop="auth" if authorization.nonce_count is not None else None,
        nc=authorization.nonce_count,
        cnonce=authorization.client_nonce,
    )


def proves(
    authorization: DigestAuthorization | Credentials, expected: Credentials, request: RtspRequest
) -> bool:
    """Whether an encoder presented its camera's login; the caller has checked the nonce."""
    if isinstance(authorization, Credentials):
        return is_login(authorization, expected)
    challenge = DigestChallenge(
        realm=REALM, nonce=authorization.nonce, algorithm=authorization.algorithm, has_qop=True
    )
    ha1 = digest_ha1(authorization.algorithm, expected, REALM)
    return authorization.username == expected.username and verify_digest(
        authorization, challenge, ha1, request.method, (authorization.uri,)
    )


def _path_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts.path + (f"?{parts.query}" if parts.query else "")
