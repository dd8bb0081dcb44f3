"""One access unit as bytes of some layer, cut where each viewer's trace mark goes."""

from typing import Protocol

import msgspec

from streams.media import AccessUnit, AudioUnit, Codec
from streams.mux.mark import MARK_PLACEHOLDER, hash_slices, is_slice, mark_sei

NAL_LENGTH_BYTES = 4


class MuxedUnit(msgspec.Struct, frozen=True, gc=False):
    """Container bytes of one access unit: `head`, then the mark, then `tail`.

    Only random access units carry a mark: they have `mark` (the placeholder, MARK_LENGTH bytes) and
    `slices_hash`; of all others `head` and `mark` are empty and `tail` is everything. So the large part is
    the same bytes object for all viewers, and a marked viewer writes `head` + its own mark, then `tail`.
    `pts` and `dts` count `TIME_BASE_HZ`; `received_ns` is the access unit's.
    """

    head: bytes
    mark: bytes
    tail: bytes
    is_random_access: bool
    pts: int
    dts: int
    received_ns: int
    slices_hash: bytes | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.mark) + len(self.tail)

    def enclosed(self, header: bytes, trailer: bytes = b"") -> "MuxedUnit":
        """The same unit one layer further out: with `header` before and `trailer` after all of it."""
        if not self.mark:
            tail = b"".join((header, self.tail, trailer))
            return MuxedUnit(
                b"", b"", tail, self.is_random_access, self.pts, self.dts, self.received_ns, self.slices_hash
            )
        return MuxedUnit(
            header + self.head,
            self.mark,
            self.tail + trailer if trailer else self.tail,
            self.is_random_access,
            self.pts,
            self.dts,
            self.received_ns,
            self.slices_hash,
        )


class Muxer(Protocol):
    """Writes the samples of one track into a container, for any number of viewers at once.

    `init`: what a new viewer needs first. `restart`: what a viewer needs when this muxer replaces another
    one in the middle of its stream. `mime`: RFC 6381 media type. `mux` takes what `sample_of` returns, and
    may be given earlier units again (for a viewer that starts from the GOP cache). Time stamps are those of
    the hub's time line: a DTS is not negative, and a PTS within 10 s of it.

    `mux_audio` gives a unit that has a tail only, is no random access point and has `dts` equal to `pts`; or
    None if the container has no place for the track's sound. It is framed and written like any other.
    """

    @property
    def init(self) -> bytes: ...

    @property
    def restart(self) -> bytes: ...

    @property
    def mime(self) -> str: ...

    def mux(self, sample: MuxedUnit) -> MuxedUnit: ...

    def mux_audio(self, unit: AudioUnit) -> MuxedUnit | None: ...


def sample_of(codec: Codec, unit: AccessUnit) -> MuxedUnit:
    """The access unit as a sample after ISO/IEC 14496-15: NAL units behind 4-byte lengths.

    In a random access unit the SEI NAL unit with the mark's placeholder goes before the first slice.
    """
    if not unit.is_random_access:
        tail = _length_prefixed(unit.nal_units)
        return MuxedUnit(b"", b"", tail, False, unit.pts, unit.dts, unit.received_ns)
    nal_units = unit.nal_units
    first_slice = next(
        (i for i, nal_unit in enumerate(nal_units) if is_slice(codec, nal_unit)), len(nal_units)
    )
    sei_head, sei_tail = mark_sei(codec, unit.pts)
    sei_length = len(sei_head) + len(MARK_PLACEHOLDER) + len(sei_tail)
    return MuxedUnit(
        _length_prefixed(nal_units[:first_slice]) + sei_length.to_bytes(NAL_LENGTH_BYTES) + sei_head,
        MARK_PLACEHOLDER,
        sei_tail + _length_prefixed(nal_units[first_slice:]),
        is_random_access=True,
        pts=unit.pts,
        dts=unit.dts,
        received_ns=unit.received_ns,
        slices_hash=hash_slices(codec, nal_units),
    )


def _length_prefixed(nal_units: tuple[bytes, ...]) -> bytes:
    if len(nal_units) == 1:  # nearly all: one slice
        return len(nal_units[0]).to_bytes(NAL_LENGTH_BYTES) + nal_units[0]
    return b"".join([part for n in nal_units for part in (len(n).to_bytes(NAL_LENGTH_BYTES), n)])
