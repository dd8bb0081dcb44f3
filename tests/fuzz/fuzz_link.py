"""The local link between our own processes, of which a hostile camera may have taken one over."""

from contextlib import suppress

from fuzz.targets import target

from streams.errors import ProtocolError
from streams.media import AccessUnit, AudioUnit, Codec, Track
from streams.sources.link import LinkParser, StreamEnd, Wanted, parse_wanted, serialize

TRACK = Track(codec=Codec.H264, parameter_sets=(b"sps", b"pps"), width=320, height=180)
UNIT = AccessUnit(pts=1, dts=1, nal_units=(b"x", b"yy"), is_random_access=True, received_ns=1)
SOUND = AudioUnit(pts=1, data=b"x", received_ns=1)


@target(
    "link_parser",
    serialize(TRACK) + serialize(UNIT) + serialize(SOUND),
    serialize(StreamEnd(code="unsupported", detail="no video")),
)
def link_parser(data: bytes) -> None:
    parser = LinkParser()
    with suppress(ProtocolError):
        for start in range(0, len(data), 7):
            parser.receive_data(data[start : start + 7])


@target("link_request", serialize(Wanted(stream="camera/sub")))
def link_request(data: bytes) -> None:
    with suppress(ProtocolError):
        parse_wanted(data)
