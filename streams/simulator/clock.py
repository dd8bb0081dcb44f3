"""The wall clock in the corner of a simulated camera's picture, in a bitmap font of our own."""

from datetime import datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

_GLYPHS = {
    "0": ".###. #...# #..## #.#.# ##..# #...# .###.",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ...#. ..#.. .#... #####",
    "3": "##### ...#. ..#.. ...#. ....# #...# .###.",
    "4": "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "6": "..##. .#... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ..#.. .#... .#... .#...",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ...#. .##..",
    "-": "..... ..... ..... ##### ..... ..... .....",
    "+": "..... ..#.. ..#.. ##### ..#.. ..#.. .....",
    ":": "..... ..#.. ..#.. ..... ..#.. ..#.. .....",
    " ": "..... ..... ..... ..... ..... ..... .....",
}
_SCALE = 2
_MARGIN = 4
_LUMA_PAPER, _LUMA_INK = 28, 225
_CHROMA_NEUTRAL = 128
LEFT, TOP = 8, 8
"""Where the clock stands, in pixels; even, so that it covers whole chroma samples."""


def clock_text(at: datetime) -> str:
    """Date, time and UTC offset of an aware time: `2026-11-22 03:20:09 +08:00`."""
    offset = at.strftime("%z")
    return f"{at:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:5]}"


@lru_cache(maxsize=64)
def clock_plate(text: str) -> Plane:
    """The luma of the clock, (height, width), both even. Raises KeyError for a character without a glyph.

    The paper is opaque: what changes behind it must not show.
    """
    glyphs = [
        np.array([[pixel == "#" for pixel in row] for row in _GLYPHS[character].split()])
        for character in text
    ]
    line = np.concatenate([np.pad(glyph, ((0, 0), (0, 1))) for glyph in glyphs], axis=1)
    ink = np.pad(line.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1), _MARGIN)
    return np.where(ink, _LUMA_INK, _LUMA_PAPER).astype(np.uint8)


def stamp_clock(planes: tuple[Plane, Plane, Plane], at: datetime) -> None:
    """Draw the time into the planes (Y, U, V) of a 4:2:0 picture, in place."""
    luma, *chroma = planes
    plate = clock_plate(clock_text(at))
    height, width = plate.shape
    luma[TOP : TOP + height, LEFT : LEFT + width] = plate
    for plane in chroma:
        rows = slice(TOP // 2, (TOP + height) // 2)
        plane[rows, LEFT // 2 : (LEFT + width) // 2] = _CHROMA_NEUTRAL
