import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import LimitExceededError, ProtocolError
from streams.wire.digest import (
    MAX_CHALLENGES,
    MAX_PARAMETERS,
    Algorithm,
    BasicChallenge,
    Credentials,
    DigestChallenge,
    authorize,
    choose_challenge,
    digest_ha1,
    parse_authorization,
    parse_challenges,
    verify_digest,
)

TEXT = st.text(st.characters(min_codepoint=0x20, exclude_categories=("Cs", "Cc")), max_size=20)
CHALLENGES = st.builds(
    DigestChallenge,
    realm=TEXT,
    nonce=TEXT.filter(bool),
    algorithm=st.sampled_from(Algorithm),
    has_qop=st.booleans(),
    opaque=st.none() | TEXT,
    is_stale=st.booleans(),
)
CREDENTIALS = st.builds(Credentials, username=TEXT, password=TEXT)

# RFC 7616 §3.9.1: one request, answered with either algorithm.
RFC_7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm, response):
    (challenge,) = parse_challenges([RFC_7616.format(algorithm)])
    header = authorize(
        challenge,
        Credentials(username="Mufasa", password="Circle of Life"),
        "GET",
        "/dir/index.html",
        nonce_count=1,
        client_nonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert f'response="{response}"' in header
    assert "opaque=" in header


def test_rfc_2069_peers_get_their_form_back():
    (challenge,) = parse_challenges(['Digest realm="IP Camera(12345)", nonce="abc"'])
    header = authorize(
        challenge,
        Credentials(username="a", password="b"),
        "DESCRIBE",
        "rtsp://c/",
        nonce_count=1,
        client_nonce="x",
    )
    assert "algorithm" not in header
    assert "qop" not in header


@pytest.mark.parametrize(
    ("value", "realm"),
    [
        ('Digest realm=IP Camera, nonce="1"', "IP Camera"),
        ('Digest Realm = Login to  C(1234) , nonce="1"', "Login to  C(1234)"),
        ("Digest nonce=1, realm=IP Camera", "IP Camera"),
        ('Digest realm=IP Camera nonce="1"', "IP Camera"),
        ("Digest realm=IP Camera nonce = 1", "IP Camera"),
        ('Digest realm=camera nonce="1"', "camera"),
        ('Digest realm= , nonce="1"', ""),
    ],
)
def test_a_realm_may_lack_its_quotes(value, realm):
    assert parse_challenges([f'{value}, Basic realm="b"']) == [
        DigestChallenge(realm=realm, nonce="1", names_algorithm=False),
        BasicChallenge(realm="b"),
    ]


@given(CHALLENGES, CREDENTIALS, TEXT, st.integers(1, 2**31))
def test_what_we_answer_we_accept(challenge, credentials, uri, nonce_count):
    (parsed,) = parse_challenges([str(challenge)])
    assert parsed == challenge
    header = authorize(parsed, credentials, "PLAY", uri, nonce_count=nonce_count, client_nonce="0a4f")
    answer = parse_authorization(header)
    ha1 = digest_ha1(challenge.algorithm, credentials, challenge.realm)
    assert answer.username == credentials.username
    assert verify_digest(answer, challenge, ha1, "PLAY", {uri})
    assert not verify_digest(answer, challenge, ha1, "TEARDOWN", {uri})
    assert not verify_digest(answer, challenge, ha1, "PLAY", {uri + "x"})
    assert not verify_digest(answer, challenge, ha1 + "0", "PLAY", {uri})
    other = DigestChallenge(realm=challenge.realm, nonce=challenge.nonce + "1", algorithm=challenge.algorithm)
    assert not verify_digest(answer, other, ha1, "PLAY", {uri})


@given(CREDENTIALS.filter(lambda credentials: ":" not in credentials.username))
def test_basic_round_trip(credentials):
    header = authorize(BasicChallenge(realm="r"), credentials, "GET", "/", nonce_count=1, client_nonce="")
    assert parse_authorization(header) == credentials


def test_the_strongest_wins_and_basic_only_if_allowed():
    offered = parse_challenges(
        [
            'Basic realm="a"',
            'Digest realm="b", nonce="1", Digest realm="c", nonce="2", algorithm=SHA-256, stale=true',
        ]
    )
    assert [type(challenge) for challenge in offered] == [BasicChallenge, DigestChallenge, DigestChallenge]
    for allow_basic in (False, True):
        chosen = choose_challenge(offered, allow_basic=allow_basic)
        assert chosen == DigestChallenge(realm="c", nonce="2", algorithm=Algorithm.SHA256, is_stale=True)
    assert choose_challenge(offered[:1], allow_basic=False) is None
    assert choose_challenge(offered[:1], allow_basic=True) == BasicChallenge(realm="a")
    assert choose_challenge([], allow_basic=True) is None


@pytest.mark.parametrize(
    "value",
    [
        'Digest realm="a", nonce="b", algorithm=MD5-sess',
        'Digest realm="a", nonce="b", algorithm=SHA-512-256',
        'Digest realm="a", nonce="b", qop="auth-int"',
        "Negotiate",
        'Bearer realm="x", scope="y"',
    ],
)
def test_what_we_cannot_answer_is_skipped(value):
    assert parse_challenges([value]) == []
    assert len(parse_challenges([value + ', Basic realm="z"'])) == 1


@pytest.mark.parametrize(
    "value", ['Digest realm="a"', 'Digest nonce="a"', 'Digest realm="unclosed', '="x"', "realm=x"]
)
def test_malformed_challenges(value):
    with pytest.raises(ProtocolError):
        parse_challenges([value])


@pytest.mark.parametrize(
    "value",
    [
        "Bearer x",
        "Basic !!",
        "Basic " + "YWJj",
        'Digest username="a"',
        'Digest username="a", realm="b", nonce="c", uri="d", response="e", qop=auth-int, nc=1, cnonce="f"',
        'Digest username="a", realm="b", nonce="c", uri="d", response="e", qop=auth, nc=1',
        'Digest username="a", realm="b", nonce="c", uri="d", response="e", algorithm=SHA-1',
        "Digest",
    ],
)
def test_malformed_authorizations(value):
    with pytest.raises(ProtocolError):
        parse_authorization(value)


def test_limits():
    one = 'Basic realm="r"'
    assert len(parse_challenges([", ".join([one] * MAX_CHALLENGES)])) == MAX_CHALLENGES
    for values in ([one] * (MAX_CHALLENGES + 1), [", ".join([one] * (MAX_CHALLENGES + 1))]):
        with pytest.raises(LimitExceededError):
            parse_challenges(values)
    parameters = [f"p{number}=1" for number in range(MAX_PARAMETERS + 1)]
    assert parse_challenges(["Basic " + ", ".join(parameters[:-1])]) == [BasicChallenge(realm="")]
    with pytest.raises(LimitExceededError):
        parse_challenges(["Basic " + ", ".join(parameters)])


@given(
    st.text()
    | st.text(st.sampled_from('Digest realm="\\,= abc'))
    | st.lists(st.sampled_from(["realm", "=", " ", "ab", ",", '"'])).map("".join)
)
def test_only_our_error_escapes(text):
    for value in (text, "Digest " + text, "Basic " + text):
        for parser in (parse_authorization, lambda value: parse_challenges([value])):
            try:
                parser(value)
            except ProtocolError:
                continue


def test_credentials_hide_the_password():
    assert "secret" not in repr(Credentials(username="a", password="secret"))
