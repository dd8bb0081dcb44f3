"""What every simulated camera of a benchmark sends, and how much of it should reach a viewer."""

from itertools import pairwise
from pathlib import Path

import msgspec

from streams.media import AccessUnit, Track
from streams.mux import CONTAINERS, FRAMINGS, sample_of
from streams.simulator.noise import NoiseSettings, encode_noise

PICTURES_PER_SECOND = 25
GOP = 50

_FLV = CONTAINERS["flv"]
_CHUNKED = FRAMINGS["chunked"]
_HTTP_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nTransfer-Encoding: chunked\r\n\r\n"


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """Whole GOPs of coded video, 25 access units a second."""

    track: Track
    units: list[AccessUnit]

    @property
    def seconds(self) -> float:
        return len(self.units) / PICTURES_PER_SECOND

    @property
    def bit_rate_bps(self) -> float:
        """Of the coded video alone."""
        return 8 * sum(unit.size_bytes for unit in self.units) / self.seconds

    def flv_head(self) -> bytes:
        """The head of an HTTP answer and the beginning of its FLV, as Custos sends them."""
        return _HTTP_HEAD + _CHUNKED.frame(_FLV(self.track).init)

    def flv_units(self) -> list[bytes]:
        """Every access unit as the bytes that Custos sends to an HTTP-FLV viewer."""
        muxer = _FLV(self.track)
        framed = (_CHUNKED.frame_unit(muxer.mux(sample_of(self.track.codec, unit))) for unit in self.units)
        return [unit.head + unit.mark + unit.tail for unit in framed]

    def flv_bytes_per_second(self) -> float:
        return sum(map(len, self.flv_units())) / self.seconds

    def flv_writes(self, merge_seconds: float) -> list[bytes]:
        """`flv_units`, joined to writes about `merge_seconds` apart, as fits; 0: one per access unit."""
        units = self.flv_units()
        count = round(self.seconds / merge_seconds) if merge_seconds else len(units)
        ends = [len(units) * number // count for number in range(count + 1)]
        return [b"".join(units[start:end]) for start, end in pairwise(ends)]


def encode_clip(bit_rate_bps: int) -> Clip:
    """Blocks for a second or two."""
    track, units = encode_noise(
        NoiseSettings(bit_rate_bps=bit_rate_bps, pictures_per_second=PICTURES_PER_SECOND, gop=GOP)
    )
    return Clip(track=track, units=units)


def write_clip(clip: Clip, path: Path) -> None:
    path.write_bytes(msgspec.msgpack.encode(clip))


def read_clip(path: Path) -> Clip:
    return msgspec.msgpack.decode(path.read_bytes(), type=Clip)
