"""The trace mark: which viewer session a keyframe was sent to, inside the coded stream.

Every random access unit carries one SEI NAL unit, user_data_unregistered (ITU-T H.264 §D.1.7, H.265 §D.2.7),
directly before its first slice. Its layout is fixed, so that a muxer writes it once with a placeholder and
each viewer's copy is patched by position:

    NAL unit header        1 byte (H.264: 06) or 2 bytes (H.265 prefix SEI: 4E 01)
    payload type, size     05 4B
    UUID                   16 bytes, MARK_UUID: names this layout
    PTS                    16 bytes, lower-case hexadecimal, in TIME_BASE_HZ, modulo 2^64
    mark                   43 bytes, unpadded base64url of session id (16 bytes) and MAC (16 bytes)
    trailing bits          80

Everything after the UUID is ASCII, and the UUID has no zero byte: three-byte sequences that would need
emulation prevention cannot occur, whatever the values. The MAC is keyed BLAKE2b (RFC 7693) over session id,
camera id, PTS and the SHA-256 hash of the coded slices, so a mark can be moved neither to another picture
nor to another camera. The PTS stands in the SEI because recorders rewrite the container's. A placeholder
left as it is parses as no mark.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

import msgspec

from streams.media import Codec
from streams.wire.nal_unit import SYNTAX, is_slice

MARK_UUID = bytes.fromhex("c5a7d3196e4b4f82a91d37e8b6f25c74")
MARK_LENGTH = 43
MARK_PLACEHOLDER = b"." * MARK_LENGTH
"""Full stops are outside the base64url alphabet: no mark looks like this."""
SESSION_ID_BYTES = 16
MAC_BYTES = 16

_PTS_DIGITS = 16
_SEI_USER_DATA_UNREGISTERED = 5
_TRAILING_BITS = b"\x80"
_SEI_HEADERS = {Codec.H264: b"\x06", Codec.H265: b"\x4e\x01"}
_MARK_PATTERN = re.compile(
    re.escape(MARK_UUID) + rb"([0-9a-f]{%d})([A-Za-z0-9_-]{%d})" % (_PTS_DIGITS, MARK_LENGTH)
)


class FoundMark(msgspec.Struct, frozen=True):
    """A mark as found in a recording: a claim, until `is_authentic` says that it is ours."""

    session_id: bytes
    pts: int
    mark: bytes
    slices_hash: bytes

    def is_authentic(self, key: bytes, camera_id: str) -> bool:
        """Whether the holder of `key` wrote this mark onto this very picture of this camera."""
        expected = mark_for(key, self.session_id, camera_id, self.pts, self.slices_hash)
        return hmac.compare_digest(expected, self.mark)


class Marker:
    """Writes the marks of one viewer session. The key and the ids are hashed once, not per keyframe."""

    def __init__(self, key: bytes, session_id: bytes, camera_id: str) -> None:
        """`key`: 16 to 64 secret bytes. `session_id`: 16 bytes. Raises ValueError for other sizes."""
        if len(session_id) != SESSION_ID_BYTES:
            raise ValueError(f"a session id has {SESSION_ID_BYTES} bytes")
        if len(key) < MAC_BYTES:
            raise ValueError(f"a mark's key has at least {MAC_BYTES} bytes")
        self._session_id = session_id
        self._keyed = hashlib.blake2b(key=key, digest_size=MAC_BYTES, person=b"custos mark 1")
        camera = camera_id.encode()
        self._keyed.update(session_id + len(camera).to_bytes(4) + camera)

    def mark(self, pts: int, slices_hash: bytes) -> bytes:
        """MARK_LENGTH bytes to put in the place of the placeholder."""
        mac = self._keyed.copy()
        mac.update(_pts_digits(pts) + slices_hash)
        return base64.urlsafe_b64encode(self._session_id + mac.digest())[:MARK_LENGTH]


def mark_for(key: bytes, session_id: bytes, camera_id: str, pts: int, slices_hash: bytes) -> bytes:
    """One mark of MARK_LENGTH bytes; for many, keep a `Marker`."""
    return Marker(key, session_id, camera_id).mark(pts, slices_hash)


def mark_sei(codec: Codec, pts: int) -> tuple[bytes, bytes]:
    """The SEI NAL unit before and after the mark."""
    size = len(MARK_UUID) + _PTS_DIGITS + MARK_LENGTH
    head = _SEI_HEADERS[codec] + bytes((_SEI_USER_DATA_UNREGISTERED, size)) + MARK_UUID + _pts_digits(pts)
    return head, _TRAILING_BITS


def find_marks(codec: Codec, nal_units: Iterable[bytes]) -> list[FoundMark]:
    """Every mark in one access unit of a recording, authentic or not. Never raises, whatever the bytes.

    A mark is recognised anywhere in an SEI NAL unit, since recorders may merge several into one.
    """
    nal_units = tuple(nal_units)
    nal_unit_type = SYNTAX[codec].nal_unit_type
    sei = nal_unit_type(_SEI_HEADERS[codec])
    matches = [
        match
        for nal_unit in nal_units
        if nal_unit and nal_unit_type(nal_unit) == sei
        for match in _MARK_PATTERN.finditer(nal_unit)
    ]
    if not matches:
        return []
    slices_hash = hash_slices(codec, nal_units)
    found = []
    for match in matches:
        session_id = base64.urlsafe_b64decode(match[2] + b"=")[:SESSION_ID_BYTES]
        found.append(FoundMark(session_id, int(match[1], 16), match[2], slices_hash))
    return found


def hash_slices(codec: Codec, nal_units: Iterable[bytes]) -> bytes:
    """SHA-256 over the coded slices of an access unit, each behind its 4-byte length."""
    digest = hashlib.sha256()
    for nal_unit in nal_units:
        if is_slice(codec, nal_unit):
            digest.update(len(nal_unit).to_bytes(4))
            digest.update(nal_unit)
    return digest.digest()


def _pts_digits(pts: int) -> bytes:
    return b"%016x" % (pts & 0xFFFF_FFFF_FFFF_FFFF)
