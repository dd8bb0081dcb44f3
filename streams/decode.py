"""Pictures out of keyframes, one at a time and without state between them, for analysis and snapshots.

A new decoder for every keyframe costs nothing measurable and keeps no memory per camera. Everything here
blocks, and feeds bytes from cameras to FFmpeg: call it in an analysis process, never on the relay's loop.
"""

from typing import Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streams.errors import StreamError
from streams.media import AccessUnit, Codec, Track
from streams.wire.nal_unit import is_slice

MAX_PIXELS = 4096 * 3072
"""Of a decoded picture; a larger one is refused before memory is taken for it."""

Image = NDArray[np.uint8]

_DECODERS: dict[Codec, Literal["h264", "hevc"]] = {Codec.H264: "h264", Codec.H265: "hevc"}
_START_CODE = b"\0\0\0\1"
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_PLANAR_YUV_DEPTHS = {
    **dict.fromkeys(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"), 8),
    **dict.fromkeys(("yuv420p10le", "yuv422p10le", "yuv444p10le", "gray10le"), 10),
    **dict.fromkeys(("yuv420p12le", "yuv422p12le", "yuv444p12le", "gray12le"), 12),
}


class DecodeError(StreamError):
    """The keyframe is broken, larger than MAX_PIXELS, or in a pixel format that no camera uses."""

    code = "decode_error"


class DecodedFrame:
    """One decoded picture, held as the decoder's own planes; scaled before anything is converted.

    Arrays that it returns are C-contiguous uint8 and own their memory. `width` and `height`: luma samples.
    """

    def __init__(self, frame: av.VideoFrame) -> None:
        """Raises DecodeError for a pixel format that is not planar YUV."""
        depth = _PLANAR_YUV_DEPTHS.get(frame.format.name)
        if depth is None:
            raise DecodeError("a pixel format that is not supported")
        self.width = frame.width
        self.height = frame.height
        self._is_full_range = frame.format.name.startswith("yuvj") or frame.color_range == _FULL_RANGE
        self._shift = depth - 8
        self._planes = [_plane_view(plane, depth) for plane in frame.planes]
        if len(self._planes) == 1:
            neutral = np.full((1, 1), 1 << (depth - 1), self._planes[0].dtype)
            self._planes += [neutral, neutral]

    def luma(self, size: tuple[int, int]) -> Image:
        """The Y plane, scaled to `size` = (width, height): array of shape (height, width)."""
        return self._scaled(0, size)

    def bgr(self, max_width: int | None = None) -> Image:
        """The picture in BGR, shape (height, width, 3), made smaller to `max_width` but never larger.

        Both sides are even. BT.601 is assumed: cameras seldom say, and analysers and eyes rarely mind.
        """
        width, height = self.width, self.height
        if max_width is not None and max_width < width:
            width, height = max_width, round(height * max_width / width)
        width, height = max(2, width & ~1), max(2, height & ~1)
        luma = self._scaled(0, (width, height))
        if self._is_full_range:
            blue, red = (self._scaled(plane, (width, height)) for plane in (1, 2))
            return np.asarray(cv2.cvtColor(cv2.merge((luma, red, blue)), cv2.COLOR_YCrCb2BGR), np.uint8)
        chroma = [self._scaled(plane, (width // 2, height // 2)).ravel() for plane in (1, 2)]
        i420 = np.concatenate((luma.ravel(), *chroma)).reshape(height * 3 // 2, width)
        return np.asarray(cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420), np.uint8)

    def _scaled(self, plane: int, size: tuple[int, int]) -> Image:
        view = self._planes[plane]
        larger = size[0] > view.shape[1] or size[1] > view.shape[0]
        scaled = cv2.resize(view, size, interpolation=cv2.INTER_LINEAR if larger else cv2.INTER_AREA)
        return (
            np.right_shift(scaled, self._shift).astype(np.uint8)
            if self._shift
            else np.asarray(scaled, np.uint8)
        )


def decode(track: Track, unit: AccessUnit) -> DecodedFrame:
    """Decode one random access unit. Raises DecodeError, also for a picture known to be damaged.

    Flipped bits that still make a valid H.265 stream cannot be known. SEI NAL units are left out: cameras
    put their own things there, and a picture needs none.
    """
    slices = [nal_unit for nal_unit in unit.nal_units if is_slice(track.codec, nal_unit)]
    data = b"".join(part for n in (*track.parameter_sets, *slices) for part in (_START_CODE, n))
    try:
        context = av.CodecContext.create(_DECODERS[track.codec], "r")
        # PyAV's default is one thread per core and decoder, which one picture has no use for.
        context.thread_count = 1
        context.thread_type = "NONE"
        # "explode": an error is an error; else H.265 decoders patch a picture up without saying so.
        context.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except Exception as error:
        # Hostile bytes make PyAV raise far more than FFmpegError (UnicodeDecodeError, MemoryError, ...), and
        # the caller's choice is the same for all: no picture.
        raise DecodeError(f"undecodable keyframe: {type(error).__name__}") from error
    for frame in frames:
        if isinstance(frame, av.VideoFrame) and not frame.is_corrupt:
            return DecodedFrame(frame)
    raise DecodeError("no intact picture in the keyframe")


def encode_jpeg(bgr: Image, quality: int) -> bytes:
    """A JPEG file of a BGR picture; `quality` 1 to 100."""
    _, encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return encoded.tobytes()


def _plane_view(plane: av.video.plane.VideoPlane, depth: int) -> Image | NDArray[np.uint16]:
    """The plane's samples without its padding, sharing its memory: (height, width)."""
    buffer = memoryview(plane)
    samples: Image | NDArray[np.uint16]
    samples = np.frombuffer(buffer, np.uint8) if depth == 8 else np.frombuffer(buffer, np.uint16)  # noqa: PLR2004
    lines = samples.reshape(-1, plane.line_size // samples.itemsize)
    return lines[: plane.height, : plane.width]
