"""Access units and sound that are written to a viewer as one."""

from collections.abc import Iterator, Sequence

from streams.media import AccessUnit, AudioUnit, Codec
from streams.mux import Muxer, Piece, Sample, sample_of


def by_picture(units: Sequence[AccessUnit | AudioUnit]) -> Iterator[list[AccessUnit | AudioUnit]]:
    """Each access unit with the sound that came before it, and the sound after the last one."""
    group: list[AccessUnit | AudioUnit] = []
    for unit in units:
        group.append(unit)
        if isinstance(unit, AccessUnit):
            yield group
            group = []
    if group:
        yield group


def random_access_of(codec: Codec, units: Sequence[AccessUnit | AudioUnit]) -> Sample | None:
    """The sample of the group's random access unit, which only its first picture may be."""
    for unit in units:
        if isinstance(unit, AccessUnit):
            return sample_of(codec, unit) if unit.is_random_access else None
    return None


def group_of(
    muxer: Muxer, units: Sequence[AccessUnit | AudioUnit], random_access: Sample | None
) -> Sample | None:
    """All that the container has a place for as one, with the times of the first picture; None if nothing.

    `random_access`: the first picture, if it is one. What comes before it is sound, and goes before its mark.
    """
    picture: AccessUnit | None = None
    sound: Sample | None = None
    head, mark, slices_hash, size, sound_units = b"", b"", None, 0, 0
    pieces: list[Piece] = []
    for unit in units:
        if not isinstance(unit, AccessUnit):
            sound_units += 1
            muxed = muxer.mux_audio(unit)
            if muxed is not None:
                pieces += muxed.pieces
                size += muxed.size_bytes
                sound = sound or muxed
        elif picture is None and random_access is not None:
            picture, muxed = unit, muxer.mux(random_access)
            head, pieces = b"".join((*pieces, muxed.head)), [*muxed.pieces]
            mark, slices_hash, size = muxed.mark, muxed.slices_hash, size + muxed.size_bytes
        else:
            picture = picture or unit
            size += muxer.append(unit, pieces)
    first, is_random_access = picture or sound, random_access is not None
    if first is None:
        return None
    return Sample(
        head,
        mark,
        pieces,
        size,
        is_random_access,
        first.pts,
        first.dts,
        first.received_ns,
        slices_hash,
        len(units) - sound_units,
    )
