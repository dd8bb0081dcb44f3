"""HTTP authentication as RTSP uses it: digest (RFC 7616, with MD5 also as of RFC 2617) and basic (RFC 7617).

Nothing here is random: nonces and client nonces are passed in. Challenges that we cannot or will not answer
(auth-int only, session algorithms, SHA-512-256) are skipped, as if the peer had not made them.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Iterable
from enum import IntEnum
from typing import Final

import msgspec

from streams.errors import LimitExceededError, ProtocolError

MAX_CHALLENGES: Final = 16
MAX_PARAMETERS: Final = 32
"""Parameters of one challenge or authorization; RFC 7616 defines twelve."""

_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PARAMETER: Final = re.compile(rf'[\s,]*({_NAME})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*)')
_BARE_REALM: Final = re.compile(
    r'[\s,]*(realm)\s*=\s*([^\s,"]+(?:[ \t]+[^\s,="]+(?=[\s,]|$)(?!\s*=))+)', re.IGNORECASE
)
"""A realm of several words that cameras leave unquoted, up to the comma or the next parameter."""
_SCHEME: Final = re.compile(rf"[\s,]*({_NAME})(?=\s|,|$)(?!\s*=)")


class Algorithm(IntEnum):
    """Digest algorithms, the stronger the larger."""

    MD5 = 1
    SHA256 = 2

    def hexdigest(self, text: str) -> str:
        # MD5 is what the installed base of cameras speaks; it guards a login here, not an integrity.
        name = "md5" if self is Algorithm.MD5 else "sha256"
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    def __str__(self) -> str:
        return "MD5" if self is Algorithm.MD5 else "SHA-256"


ALGORITHMS: Final = {str(algorithm): algorithm for algorithm in Algorithm}


class DigestChallenge(msgspec.Struct, frozen=True, kw_only=True):
    """`names_algorithm`: whether the peer spelt the algorithm out; RFC 2069 peers reject it in an answer."""

    realm: str
    nonce: str
    algorithm: Algorithm = Algorithm.MD5
    names_algorithm: bool = True
    has_qop: bool = False
    opaque: str | None = None
    is_stale: bool = False

    def __str__(self) -> str:
        parts = [f"realm={_quote(self.realm)}", f"nonce={_quote(self.nonce)}"]
        if self.names_algorithm:
            parts.append(f"algorithm={self.algorithm}")
        if self.has_qop:
            parts.append('qop="auth"')
        if self.opaque is not None:
            parts.append(f"opaque={_quote(self.opaque)}")
        if self.is_stale:
            parts.append("stale=true")
        return "Digest " + ", ".join(parts)


class BasicChallenge(msgspec.Struct, frozen=True, kw_only=True):
    realm: str

    def __str__(self) -> str:
        return f"Basic realm={_quote(self.realm)}"


Challenge = DigestChallenge | BasicChallenge


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


class DigestAuthorization(msgspec.Struct, frozen=True, kw_only=True):
    """What a client answered. `nonce_count` and `client_nonce` are there if it chose qop=auth."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: Algorithm = Algorithm.MD5
    nonce_count: str | None = None
    client_nonce: str | None = None


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Every challenge of the WWW-Authenticate headers that could be answered, in order.

    Unknown schemes are skipped. Raises ProtocolError for a digest without realm or nonce, and
    LimitExceededError for more than MAX_CHALLENGES challenges.
    """
    challenges: list[Challenge] = []
    for value in values:
        for scheme, parameters in _split_schemes(value):
            if scheme == "basic":
                challenges.append(BasicChallenge(realm=parameters.get("realm", "")))
            elif scheme == "digest" and (digest := _digest_challenge(parameters)) is not None:
                challenges.append(digest)
    if len(challenges) > MAX_CHALLENGES:
        raise LimitExceededError("too many authentication challenges")
    return challenges


def choose_challenge(challenges: Iterable[Challenge], *, allow_basic: bool) -> Challenge | None:
    """The strongest digest, else basic if the caller allows a password in clear, else None."""
    offered = list(challenges)
    digests = [challenge for challenge in offered if isinstance(challenge, DigestChallenge)]
    if digests:
        return max(digests, key=lambda challenge: challenge.algorithm)
    return next(iter(offered), None) if allow_basic else None


def authorize(
    challenge: Challenge,
    credentials: Credentials,
    method: str,
    uri: str,
    *,
    nonce_count: int,
    client_nonce: str,
) -> str:
    """The Authorization header that answers `challenge` for one request.

    `nonce_count` counts the requests answered with this challenge's nonce, from 1 (RFC 7616 §3.4).
    """
    if isinstance(challenge, BasicChallenge):
        token = f"{credentials.username}:{credentials.password}".encode()
        return "Basic " + base64.b64encode(token).decode()
    authorization = DigestAuthorization(
        username=credentials.username,
        realm=challenge.realm,
        nonce=challenge.nonce,
        uri=uri,
        response="",
        algorithm=challenge.algorithm,
        nonce_count=f"{nonce_count:08x}" if challenge.has_qop else None,
        client_nonce=client_nonce if challenge.has_qop else None,
    )
    ha1 = digest_ha1(challenge.algorithm, credentials, challenge.realm)
    parts = [
        f"username={_quote(credentials.username)}",
        f"realm={_quote(challenge.realm)}",
        f"nonce={_quote(challenge.nonce)}",
        f"uri={_quote(uri)}",
        f'response="{_response(authorization, ha1, method)}"',
    ]
    if challenge.names_algorithm:
        parts.append(f"algorithm={challenge.algorithm}")
    if challenge.has_qop:
        parts.append(f'qop=auth, nc={authorization.nonce_count}, cnonce="{client_nonce}"')
    if challenge.opaque is not None:
        parts.append(f"opaque={_quote(challenge.opaque)}")
    return "Digest " + ", ".join(parts)


def parse_authorization(value: str) -> DigestAuthorization | Credentials:
    """What a client sent: a digest, or a name and a password in clear. Raises ProtocolError."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() == "basic":
        return _parse_basic(rest)
    if scheme.lower() != "digest":
        raise ProtocolError("unknown authentication scheme")
    (_, parameters), *others = _split_schemes(value)
    algorithm = ALGORITHMS.get(parameters.get("algorithm", "MD5").upper())
    if others or algorithm is None or parameters.get("qop", "auth") != "auth":
        raise ProtocolError("digest authorization that was not offered")
    if ("qop" in parameters) != ("nc" in parameters and "cnonce" in parameters):
        raise ProtocolError("incomplete digest authorization")
    try:
        return DigestAuthorization(
            username=parameters["username"],
            realm=parameters["realm"],
            nonce=parameters["nonce"],
            uri=parameters["uri"],
            response=parameters["response"],
            algorithm=algorithm,
            nonce_count=parameters.get("nc") if "qop" in parameters else None,
            client_nonce=parameters.get("cnonce") if "qop" in parameters else None,
        )
    except KeyError:
        raise ProtocolError("incomplete digest authorization") from None


def digest_ha1(algorithm: Algorithm, credentials: Credentials, realm: str) -> str:
    """The secret that both ends share (RFC 7616 §3.4.2): as good as the password within this realm."""
    return algorithm.hexdigest(f"{credentials.username}:{realm}:{credentials.password}")


def verify_digest(
    authorization: DigestAuthorization,
    challenge: DigestChallenge,
    ha1: str,
    method: str,
    uris: Collection[str],
) -> bool:
    """Whether a client's answer proves `ha1` for this challenge, method and one of these URIs.

    The caller guards the nonce: who made it, how old it may grow, and whether it may be used again. `uris`
    is plural because players sign SETUP with the presentation's URL instead of the track's.
    """
    return (
        authorization.realm == challenge.realm
        and authorization.nonce == challenge.nonce
        and authorization.algorithm is challenge.algorithm
        and authorization.uri in uris
        and hmac.compare_digest(
            _response(authorization, ha1, method).encode(), authorization.response.lower().encode()
        )
    )


def _response(authorization: DigestAuthorization, ha1: str, method: str) -> str:
    digest = authorization.algorithm.hexdigest
    ha2 = digest(f"{method}:{authorization.uri}")
    if authorization.nonce_count is None:
        return digest(f"{ha1}:{authorization.nonce}:{ha2}")
    count, client_nonce = authorization.nonce_count, authorization.client_nonce
    return digest(f"{ha1}:{authorization.nonce}:{count}:{client_nonce}:auth:{ha2}")


def _digest_challenge(parameters: dict[str, str]) -> DigestChallenge | None:
    algorithm = ALGORITHMS.get(parameters.get("algorithm", "MD5").upper())
    qops = {qop.strip().lower() for qop in parameters.get("qop", "").split(",")} - {""}
    if algorithm is None or (qops and "auth" not in qops):
        return None
    if "realm" not in parameters or not parameters.get("nonce"):
        raise ProtocolError("digest challenge without realm or nonce")
    return DigestChallenge(
        realm=parameters["realm"],
        nonce=parameters["nonce"],
        algorithm=algorithm,
        names_algorithm="algorithm" in parameters,
        has_qop=bool(qops),
        opaque=parameters.get("opaque"),
        is_stale=parameters.get("stale", "").lower() == "true",
    )


def _split_schemes(value: str) -> list[tuple[str, dict[str, str]]]:
    """Schemes with their parameters: commas separate both challenges and parameters (RFC 7235 §4.1)."""
    schemes: list[tuple[str, dict[str, str]]] = []
    position = 0
    while value[position:].strip(" \t,"):
        if (scheme := _SCHEME.match(value, position)) is not None:
            schemes.append((scheme[1].lower(), {}))
            position = scheme.end()
        elif schemes and (parameter := _match_parameter(value, position)) is not None:
            schemes[-1][1].setdefault(parameter[1].lower(), _unquote(parameter[2]))
            position = parameter.end()
        else:
            raise ProtocolError("malformed authentication header")
        if len(schemes) > MAX_CHALLENGES or len(schemes[-1][1]) > MAX_PARAMETERS:
            raise LimitExceededError("authentication header is too long")
    return schemes


def _match_parameter(value: str, position: int) -> re.Match[str] | None:
    return _BARE_REALM.match(value, position) or _PARAMETER.match(value, position)


def _parse_basic(token: str) -> Credentials:
    try:
        text = base64.b64decode(token.strip(), validate=True).decode()
    except ValueError:
        raise ProtocolError("malformed basic authorization") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise ProtocolError("malformed basic authorization")
    return Credentials(username=username, password=password)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
