"""Faults of a camera that is live: it sends, and what it sends is wrong."""

from collections import deque

from streams.media import AccessUnit, Codec
from streams.wire.nal_unit import is_slice

FROZEN = "frozen"
TIMESTAMP_JUMP = "timestamp_jump"
PACKET_LOSS = "packet_loss"
FAULT_KEPT_SECONDS = 30.0
"""How long a fault that is one moment's is shown."""

_REMEMBERED_KEYFRAMES = 8
_FROZEN_NS = 15_000_000_000
_FROZEN_KEYFRAMES = 2
"""Enough within 30 s of the fault with keyframes every 10 s, or every 6 s where two idr_pic_id alternate."""


class FrozenPicture:
    """Recognises a camera whose encoder goes on while its sensor does not: it repeats its keyframes.

    A sensor's noise makes no two keyframes equal. The slices are compared with those of the last
    _REMEMBERED_KEYFRAMES, since successive IDR pictures must differ in idr_pic_id (H.264 §7.4.3) and often
    alternate between two of them.
    """

    def __init__(self) -> None:
        self._hashes: deque[int] = deque(maxlen=_REMEMBERED_KEYFRAMES)
        self._repeated = 0
        self._since_ns = 0
        self.is_frozen = False

    def see(self, codec: Codec, unit: AccessUnit) -> None:
        """A keyframe has arrived."""
        digest = hash(tuple(n for n in unit.nal_units if is_slice(codec, n)))
        if digest in self._hashes:
            self._repeated += 1
            self.is_frozen = (
                self._repeated >= _FROZEN_KEYFRAMES and unit.received_ns - self._since_ns >= _FROZEN_NS
            )
        else:
            self._repeated, self._since_ns, self.is_frozen = 0, unit.received_ns, False
        self._hashes.append(digest)
