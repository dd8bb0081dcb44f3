"""RTP and RTCP packets, as a camera or a publisher sends them. Packets stand behind 16-bit lengths."""

from contextlib import suppress

from fuzz.fuzz_rtsp import DESCRIPTION
from fuzz.targets import target
from support.units import encode_clip

from streams.errors import ProtocolError
from streams.media import Codec
from streams.wire import h264, h265
from streams.wire.audio_depacketizer import open_audio_depacketizer
from streams.wire.depacketizer import H264Depacketizer, H265Depacketizer
from streams.wire.fragment_run import FragmentRun, FragmentScanner
from streams.wire.packetizer import Packetizer, RtpSender
from streams.wire.parameter_sets import ParameterSets
from streams.wire.reordering import ReorderBuffer
from streams.wire.rtcp import SenderReport, parse_sender_report, serialize_sender_report
from streams.wire.rtp import RtpPacket, parse_rtp
from streams.wire.rtsp import RtspParser, serialize_interleaved
from streams.wire.sdp import parse_sdp

SENDER = RtpSender(payload_type=96, ssrc=7, first_sequence_number=65534, timestamp_offset=0)


def joined(packets: list[bytes]) -> bytes:
    return b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)


def split(data: bytes) -> list[bytes]:
    packets, position = [], 0
    while position < len(data):
        end = position + 2 + int.from_bytes(data[position : position + 2], "big")
        packets.append(data[position + 2 : end])
        position = end
    return packets


def clip(codec: Codec) -> bytes:
    track, units = encode_clip(codec, 3, width=64, height=48)
    packetizer = Packetizer(codec, SENDER, 120)
    return joined([packet for unit in units for packet in packetizer.packetize(unit, track.parameter_sets)])


def interleaved(codec: Codec) -> bytes:
    return b"".join(serialize_interleaved(0, packet) for packet in split(clip(codec)))


@target("rtp-h264", clip(Codec.H264))
def h264_packets(data: bytes) -> None:
    depacketizer = H264Depacketizer()
    with suppress(ProtocolError):
        for packet in split(data):
            depacketizer.receive(parse_rtp(packet), 0)


@target("rtp-h265", clip(Codec.H265))
def h265_packets(data: bytes) -> None:
    depacketizer = H265Depacketizer()
    with suppress(ProtocolError):
        for packet in split(data):
            depacketizer.receive(parse_rtp(packet), 0)


@target(
    "rtcp",
    serialize_sender_report(
        SenderReport(ssrc=1, ntp_timestamp=2**40, rtp_timestamp=3, packet_count=4, octet_count=5)
    ),
)
def rtcp(data: bytes) -> None:
    with suppress(ProtocolError):
        parse_sender_report(data)


@target("parameter-sets-h264", *encode_clip(Codec.H264, 1)[0].parameter_sets)
def h264_parameter_sets(data: bytes) -> None:
    if data and data[0] & 0x1F in h264.PARAMETER_SETS:
        with suppress(ProtocolError):
            ParameterSets(Codec.H264).add(data)


@target("parameter-sets-h265", *encode_clip(Codec.H265, 1)[0].parameter_sets)
def h265_parameter_sets(data: bytes) -> None:
    if len(data) > 1 and data[0] >> 1 & 0x3F in h265.PARAMETER_SETS:
        with suppress(ProtocolError):
            ParameterSets(Codec.H265).add(data)


@target("rtp-aac", joined([b"\x80\xe1\0\1\0\0\0\0\0\0\0\7" + b"\x00\x20\x00\x18\x00\x10abcde"]))
def aac(data: bytes) -> None:
    _, depacketizer = open_audio_depacketizer(parse_sdp(DESCRIPTION).media[1])
    for packet in split(data):
        with suppress(ProtocolError):
            depacketizer.receive(parse_rtp(packet))


@target("rtp-interleaved", interleaved(Codec.H264))
def runs(data: bytes) -> None:
    parser, depacketizer = RtspParser(), H264Depacketizer()
    parser.scanner = FragmentScanner(Codec.H264, 0, 96)
    with suppress(ProtocolError):
        for event in parser.receive_data(data):
            if isinstance(event, FragmentRun):
                depacketizer.receive_run(event, 0)


@target("rtp-reordering", bytes((0, 2, 1, 5, 3, 4, 200, 0)))
def reordering(data: bytes) -> None:
    buffer = ReorderBuffer()
    for index, number in enumerate(data):
        packet = RtpPacket(96, False, number * 300 & 0xFFFF, 0, index // 100, b"")
        buffer.receive(packet, index * 1_000_000)
        buffer.expire(index * 1_000_000)
