"""Which addresses a camera may have."""

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import SourceUnreachableError, UnsupportedError
from streams.sources import egress
from streams.sources.egress import EgressSettings, Endpoint, check_url, resolve


def allow(*networks, **settings):
    return EgressSettings(allowed_networks=tuple(map(ipaddress.ip_network, networks)), **settings)


EVERYTHING_PUBLIC = allow("0.0.0.0/0", "::/0")
LOOPBACK = allow("127.0.0.0/8", "::1/128")


def answers(*addresses):
    async def lookup(host, port):
        return list(addresses)

    return lookup


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtsp://camera.example/x", Endpoint(scheme="rtsp", host="camera.example", port=554)),
        ("RTSP://Camera.Example./x", Endpoint(scheme="rtsp", host="camera.example", port=554)),
        ("http://93.184.216.34/a", Endpoint(scheme="http", host="93.184.216.34", port=80)),
        ("https://93.184.216.34:8443", Endpoint(scheme="https", host="93.184.216.34", port=8443)),
        ("rtmp://[2606:4700::1111]/a/b", Endpoint(scheme="rtmp", host="2606:4700::1111", port=1935)),
        ("http://[::ffff:93.184.216.34]/", Endpoint(scheme="http", host="93.184.216.34", port=80)),
        ("http://xn--fiqs8s.example/", Endpoint(scheme="http", host="xn--fiqs8s.example", port=80)),
        ("srt://camera_1.example:9000", Endpoint(scheme="srt", host="camera_1.example", port=9000)),
    ],
)
def test_good_addresses_have_one_spelling(url, expected):
    assert check_url(url, EVERYTHING_PUBLIC) == expected


SPECIAL_ADDRESSES = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[ff02::1]",
]
UNUSUAL_SPELLINGS = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0X7F000001",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.01",
    "127.0.0.1.",
    "127.0.0.1..",
    "0",
    "0x",
    "1.2.3.4.5",
    "256.256.256.256",
    "camera.1",
    "camera.0x7f",
]


@pytest.mark.parametrize("host", SPECIAL_ADDRESSES + UNUSUAL_SPELLINGS)
@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp"])
def test_special_and_unusual_addresses_are_refused(scheme, host):
    with pytest.raises(UnsupportedError):
        check_url(f"{scheme}://{host}/x", EVERYTHING_PUBLIC)


@pytest.mark.parametrize("host", sorted(set(UNUSUAL_SPELLINGS) - {"127.0.0.1."}))
def test_unusual_spellings_are_refused_even_where_their_address_is_allowed(host):
    with pytest.raises(UnsupportedError):
        check_url(f"http://{host}/", allow("0.0.0.0/0", "127.0.0.0/8", "0.0.0.0/8"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "camera.example",
        "//camera.example/x",
        "file:///etc/passwd",
        "concat:http://a/|http://b/",
        "gopher://camera.example/",
        "http:camera.example",
        "http:///x",
        "http://",
        "http://:80/",
        "http://camera.example:0/",
        "http://camera.example:65536/",
        "http://camera.example:port/",
        "http://camera.example:-1/",
        "srt://camera.example",
        "http://user@camera.example/",
        "http://user:pass@camera.example/",
        "http://@camera.example/",
        "http://93.184.216.34@127.0.0.1/",
        "http://127.0.0.1@93.184.216.34/",
        "http://93.184.216.34#@127.0.0.1\\@/",
        "http://93.184.216.34\\@127.0.0.1/",
        "http://camera.example\\.evil/",
        "http://127.0.0.1%2f@camera.example/",
        "http://camera%2eexample/",
        "http://[::1/",
        "http://[camera.example]/",
        "http://[::ffff:127.0.0.1%25lo]/",
        "http://camera..example/",
        "http://.camera.example/",
        "http://-camera.example/",
        "http://camera.example/a b",
        "http://camera.example/\r\nHost: x",
        "http://camera.example\t/",
        " http://camera.example/",
        "http://camera.example/\x00",
        "http://\uff11\uff12\uff17.0.0.1/",  # fullwidth digits, which IDNA maps to 127.0.0.1
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://camera\u3002example/",  # ideographic full stop
        "http://\u4e2d\u56fd.example/",
        "::////",
    ],
)
def test_tricky_urls_are_refused(url):
    with pytest.raises(UnsupportedError):
        check_url(url, EVERYTHING_PUBLIC)


def test_a_refusal_does_not_repeat_the_address():
    with pytest.raises(UnsupportedError) as raised:
        check_url("rtsp://admin:canary@10.0.0.1/x", EVERYTHING_PUBLIC)
    assert "canary" not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_the_longest_url_and_one_character_more():
    url = "http://camera.example/"
    url += "x" * (egress.MAX_URL_CHARACTERS - len(url))
    check_url(url, EVERYTHING_PUBLIC)
    with pytest.raises(UnsupportedError):
        check_url(url + "x", EVERYTHING_PUBLIC)


def test_the_longest_host_and_one_character_more():
    host = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(host) == egress.MAX_HOST_CHARACTERS
    check_url(f"http://{host}/", EVERYTHING_PUBLIC)
    for longer in (host + "a", host.replace("a", "aa", 1)):
        with pytest.raises(UnsupportedError):
            check_url(f"http://{longer}/", EVERYTHING_PUBLIC)


@pytest.mark.parametrize(
    ("allowed", "address", "is_allowed"),
    [
        ([], "93.184.216.34", False),
        (["93.184.216.0/24"], "93.184.216.34", True),
        (["93.184.216.0/24"], "93.184.217.34", False),
        (["10.1.0.0/16"], "10.1.2.3", True),
        (["10.1.0.0/16"], "10.2.2.3", False),
        (["10.0.0.0/8"], "10.2.2.3", True),
        (["8.0.0.0/5"], "10.2.2.3", False),
        (["127.0.0.0/8"], "127.0.0.1", True),
        (["127.0.0.1/32"], "127.0.0.2", False),
        (["169.254.0.0/16"], "169.254.169.254", True),
        (["100.64.0.0/10"], "100.64.0.1", True),
        (["100.64.0.0/10"], "100.100.100.200", False),
        (["100.100.100.200/32"], "100.100.100.200", True),
        (["0.0.0.0/0", "10.0.0.0/8"], "10.2.2.3", True),
        (["::1/128"], "[::1]", True),
        (["127.0.0.0/8"], "[::ffff:127.0.0.1]", True),
        (["::/0"], "[::ffff:93.184.216.34]", False),
        (["fd00::/8"], "[fd12::1]", True),
        (["fd00::/8"], "[fd00:ec2::254]", False),
        (["::/0"], "[fd12::1]", False),
    ],
)
def test_allowed_networks(allowed, address, is_allowed):
    if is_allowed:
        check_url(f"http://{address}/", allow(*allowed))
        return
    with pytest.raises(UnsupportedError):
        check_url(f"http://{address}/", allow(*allowed))


async def test_a_name_is_resolved_once_to_an_address():
    calls = []

    async def lookup(host, port):
        calls.append((host, port))
        return ["93.184.216.34"]

    assert await resolve("Camera.Example.", 554, EVERYTHING_PUBLIC, lookup=lookup) == ("93.184.216.34", 554)
    assert calls == [("camera.example", 554)]


async def test_a_literal_is_never_looked_up():
    async def lookup(host, port):
        raise AssertionError

    assert await resolve("::1", 80, LOOPBACK, lookup=lookup) == ("::1", 80)
    with pytest.raises(UnsupportedError):
        await resolve("127.0.0.1", 80, EVERYTHING_PUBLIC, lookup=lookup)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["93.184.216.34", "::1"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%lo"],
    ],
)
async def test_every_address_of_a_name_must_pass(addresses):
    with pytest.raises(UnsupportedError):
        await resolve("camera.example", 554, EVERYTHING_PUBLIC, lookup=answers(*addresses))


async def test_the_most_addresses_and_one_more():
    most = [f"93.184.216.{index}" for index in range(egress.MAX_ADDRESSES)]
    await resolve("camera.example", 554, EVERYTHING_PUBLIC, lookup=answers(*most))
    with pytest.raises(UnsupportedError):
        await resolve("camera.example", 554, EVERYTHING_PUBLIC, lookup=answers(*most, "93.184.217.1"))


@pytest.mark.parametrize("addresses", [[], ["nonsense"]])
async def test_a_name_without_an_address(addresses):
    with pytest.raises(SourceUnreachableError):
        await resolve("camera.example", 554, EVERYTHING_PUBLIC, lookup=answers(*addresses))


async def test_a_failing_and_a_silent_resolver():
    async def fail(host, port):
        raise OSError

    async def hang(host, port):
        await asyncio.Event().wait()

    with pytest.raises(SourceUnreachableError):
        await resolve("camera.example", 554, EVERYTHING_PUBLIC, lookup=fail)
    settings = allow("0.0.0.0/0", resolve_timeout_seconds=0.01)
    with pytest.raises(SourceUnreachableError):
        await resolve("camera.example", 554, settings, lookup=hang)


async def test_the_systems_resolver():
    host, port = await resolve("localhost", 80, LOOPBACK)
    assert ipaddress.ip_address(host).is_loopback
    assert port == 80
    with pytest.raises(UnsupportedError):
        await resolve("localhost", 80, EVERYTHING_PUBLIC)


@given(
    st.text(max_size=60), st.sampled_from(["", "http://", "rtsp://", "http://[", "http://127.", "http://0x"])
)
def test_only_our_own_error_escapes(text, prefix):
    try:
        endpoint = check_url(prefix + text, EVERYTHING_PUBLIC)
    except UnsupportedError:
        return
    assert endpoint.host
    assert 0 < endpoint.port < 65536


@given(st.ip_addresses())
def test_what_is_public_is_what_python_calls_global(address):
    """The table refuses at least what the IANA registries in the standard library call not global."""
    spelling = f"[{address}]" if address.version == 6 else str(address)
    try:
        check_url(f"http://{spelling}/", EVERYTHING_PUBLIC)
    except UnsupportedError:
        return
    assert (getattr(address, "ipv4_mapped", None) or address).is_global
