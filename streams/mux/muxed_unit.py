"""One access unit as bytes of some layer, cut where each viewer's trace mark goes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import msgspec

from streams.media import AccessUnit, AudioUnit, Codec
from streams.mux.mark import MARK_PLACEHOLDER, hash_slices, mark_sei
from streams.wire.nal_unit import is_slice

NAL_LENGTH_BYTES = 4

Piece = bytes | memoryview


class MuxedUnit(msgspec.Struct, frozen=True, gc=False):
    """Container bytes of one access unit, as every viewer gets them: `head`, then the mark, then `tail`.

    Only random access units carry a mark: they have `mark` (the placeholder, MARK_LENGTH bytes) and
    `slices_hash`; of all others `head` and `mark` are empty and `tail` is everything. So the large part is
    the same bytes object for all viewers, and a marked viewer writes `head` + its own mark, then `tail`.
    `pts` and `dts` count `TIME_BASE_HZ`; `received_ns` is the access unit's. `access_units`: how many are in
    it, where several are written as one; 0 for sound alone.
    """

    head: bytes
    mark: bytes
    tail: bytes
    is_random_access: bool
    pts: int
    dts: int
    received_ns: int
    slices_hash: bytes | None = None
    access_units: int = 1

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.mark) + len(self.tail)


class Sample(msgspec.Struct, frozen=True, gc=False):
    """A `MuxedUnit` on its way: what comes after the mark is still in pieces, which the framing joins.

    A picture of a city's camera is in no cache of the processor: each copy of it costs as much as the rest.
    """

    head: bytes
    mark: bytes
    pieces: Sequence[Piece]
    size_bytes: int
    is_random_access: bool
    pts: int
    dts: int
    received_ns: int
    slices_hash: bytes | None = None
    access_units: int = 1

    @property
    def tail(self) -> bytes:
        return b"".join(self.pieces)

    def enclosed(self, header: bytes, trailer: bytes = b"") -> "Sample":
        """The same unit one layer further out: with `header` before and `trailer` after all of it."""
        if self.mark:
            head, pieces = header + self.head, (*self.pieces, trailer)
        else:
            head, pieces = b"", (header, *self.pieces, trailer)
        return Sample(
            head,
            self.mark,
            pieces,
            self.size_bytes + len(header) + len(trailer),
            self.is_random_access,
            self.pts,
            self.dts,
            self.received_ns,
            self.slices_hash,
            self.access_units,
        )


def sound_sample(unit: AudioUnit, *pieces: Piece) -> Sample:
    """Some sound in a container's bytes."""
    size = sum(map(len, pieces))
    return Sample(b"", b"", pieces, size, False, unit.pts, unit.pts, unit.received_ns, access_units=0)


class Muxer(Protocol):
    """Writes the samples of one track into a container, for any number of viewers at once.

    `init`: what a new viewer needs first. `restart`: what a viewer needs when this muxer replaces another
    one in the middle of its stream. `mime`: RFC 6381 media type. `mux` takes what `sample_of` returns, and
    may be given earlier units again (for a viewer that starts from the GOP cache). Time stamps are those of
    the hub's time line: a DTS is not negative, and a PTS within 10 s of it.

    `counts`: whether units are numbered through, or timed by those before. Then who reads what such a muxer
    writes must get all of it, and nothing may be given to it again meanwhile.

    `declares_sound`: whether its beginning names sound. Players then wait for it before they show a picture.

    `append` is `mux` for an access unit that is no random access point, as nearly all are: it puts the pieces
    after those of the group, and returns how many bytes they have.

    `mux_audio` gives a unit that has a tail only, is no random access point and has `dts` equal to `pts`; or
    None if the container has no place for the track's sound. It is framed and written like any other.
    """

    @property
    def init(self) -> bytes: ...

    @property
    def restart(self) -> bytes: ...

    @property
    def mime(self) -> str: ...

    @property
    def counts(self) -> bool: ...

    @property
    def declares_sound(self) -> bool: ...

    def mux(self, sample: Sample) -> Sample: ...

    def append(self, unit: AccessUnit, pieces: list[Piece]) -> int: ...

    def mux_audio(self, unit: AudioUnit) -> Sample | None: ...


class SampleMuxer(ABC):
    """A muxer to which all access units are samples."""

    counts = False
    declares_sound = False

    @abstractmethod
    def mux(self, sample: Sample) -> Sample: ...

    def append(self, unit: AccessUnit, pieces: list[Piece]) -> int:
        muxed = self.mux(_plain_sample(unit))
        pieces += muxed.pieces
        return muxed.size_bytes


def sample_of(codec: Codec, unit: AccessUnit) -> Sample:
    """The access unit as a sample after ISO/IEC 14496-15: NAL units behind 4-byte lengths.

    In a random access unit the SEI NAL unit with the mark's placeholder goes before the first slice.
    """
    if not unit.is_random_access:
        return _plain_sample(unit)
    nal_units = unit.nal_units
    first_slice = next(
        (i for i, nal_unit in enumerate(nal_units) if is_slice(codec, nal_unit)), len(nal_units)
    )
    sei_head, sei_tail = mark_sei(codec, unit.pts)
    sei_length = len(sei_head) + len(MARK_PLACEHOLDER) + len(sei_tail)
    before, _ = _length_prefixed(nal_units[:first_slice])
    head = b"".join((*before, sei_length.to_bytes(NAL_LENGTH_BYTES), sei_head))
    pieces, size = _length_prefixed(nal_units[first_slice:])
    return Sample(
        head,
        MARK_PLACEHOLDER,
        (sei_tail, *pieces),
        len(head) + len(MARK_PLACEHOLDER) + len(sei_tail) + size,
        is_random_access=True,
        pts=unit.pts,
        dts=unit.dts,
        received_ns=unit.received_ns,
        slices_hash=hash_slices(codec, nal_units),
    )


def _plain_sample(unit: AccessUnit) -> Sample:
    """A sample without a place for a mark."""
    nal_units = unit.nal_units
    if len(nal_units) == 1:  # nearly all: one slice
        (nal_unit,) = nal_units
        size = len(nal_unit)
        pieces: tuple[bytes, ...] = size.to_bytes(NAL_LENGTH_BYTES), nal_unit
        size += NAL_LENGTH_BYTES
    else:
        pieces, size = _length_prefixed(nal_units)
    return Sample(b"", b"", pieces, size, False, unit.pts, unit.dts, unit.received_ns)


def _length_prefixed(nal_units: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], int]:
    """The pieces, and how many bytes they have together."""
    pieces = tuple(part for n in nal_units for part in (len(n).to_bytes(NAL_LENGTH_BYTES), n))
    return pieces, sum(map(len, pieces))
