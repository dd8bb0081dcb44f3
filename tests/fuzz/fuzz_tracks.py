"""What muxers read out of a camera's own description of its media."""

from contextlib import suppress

from fuzz.targets import target

from streams.errors import StreamError
from streams.media import Codec, Track
from streams.mux.codec_configuration import codec_configuration
from streams.wire.aac import parse_audio_specific_config


@target("audio_specific_config", b"\x11\x90", b"\x2b\x09\x88\x00", b"\x17\x80\x5d\xc0\x08")
def fuzz_audio_specific_config(data: bytes) -> None:
    with suppress(StreamError):
        parse_audio_specific_config(data)


@target(
    "codec_configuration",
    bytes.fromhex("6764001facd9405005bb016a02020280"),
    bytes.fromhex("420101016000000300b0000003000003007ba003c08010e58dae4914"),
)
def fuzz_codec_configuration(data: bytes) -> None:
    """An SPS of either codec, among sets that are well-formed."""
    others = {Codec.H264: (b"\x68\xeb\xe3",), Codec.H265: (b"\x40\x01", b"\x44\x01")}
    for codec, sets in others.items():
        with suppress(StreamError):
            codec_configuration(Track(codec=codec, parameter_sets=(data, *sets), width=16, height=16))
