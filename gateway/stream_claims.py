"""Which relay worker has which stream: one upstream for each, whoever asks first. Pure; control owns it."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from gateway.messages import camera_of

REMEMBERED_MOVES = 64
"""Changes of cameras, one or a file of them, of which a worker hears that was away meanwhile."""


@dataclass(slots=True)
class Holding:
    """`peers`: the workers that were told to take the stream from `worker`."""

    worker: int
    epoch: int
    peers: set[int] = field(default_factory=set)


class StreamClaims:
    """Claims by stream key, each with an epoch: a number that grows with every claim that is answered."""

    def __init__(self, first_epoch: int) -> None:
        """`first_epoch`: larger than any that an earlier control gave."""
        self._epoch = first_epoch
        self._holdings: dict[str, Holding] = {}
        self.moves = 0
        self._moved: deque[tuple[int, Collection[str]]] = deque(maxlen=REMEMBERED_MOVES)

    def moved(self, cameras: Collection[str]) -> None:
        """These cameras are reached in another way now. `moves` counts how often that was said."""
        self.moves += 1
        self._moved.append((self._epoch, cameras))

    def moved_since(self, streams: dict[str, int]) -> list[str]:
        """Those of streams with their epochs whose cameras have moved after the claim was answered."""
        return [
            stream
            for stream, epoch in streams.items()
            if any(epoch <= then and camera_of(stream) in cameras for then, cameras in self._moved)
        ]

    def takers(self) -> dict[str, set[int]]:
        """By stream: who has it, and who takes it from there."""
        return {stream: {holding.worker, *holding.peers} for stream, holding in self._holdings.items()}

    def holder(self, stream: str) -> int | None:
        holding = self._holdings.get(stream)
        return holding.worker if holding is not None else None

    def ask(self, stream: str, worker: int) -> Holding:
        """The stream's claim: the worker's own if it had it or nobody has, else another's."""
        holding = self._holdings.get(stream)
        if holding is None or holding.worker == worker:
            return self._give(stream, worker)
        holding.peers.add(worker)
        return holding

    def take_over(self, stream: str, worker: int) -> Holding:
        """A publisher has come to the worker: the claim is the worker's, whoever had it."""
        return self._give(stream, worker)

    def restore(self, worker: int, streams: dict[str, int]) -> list[str]:
        """A worker says which streams it has, with their epochs. Returns those that another one has."""
        lost = []
        for stream, epoch in streams.items():
            holding = self._holdings.get(stream)
            if holding is not None and holding.worker != worker:
                lost.append(stream)
            else:
                self._epoch = max(self._epoch, epoch)
                self._holdings[stream] = Holding(worker, epoch, holding.peers if holding else set())
        return lost

    def release(self, stream: str, worker: int, epoch: int) -> set[int] | None:
        """Free a claim; the peers that lose their upstream, or None if it was not this claim's release."""
        holding = self._holdings.get(stream)
        if holding is None or holding.worker != worker or holding.epoch > epoch:
            return None
        del self._holdings[stream]
        return holding.peers

    def drop(self, worker: int, keep: dict[str, int] | None = None) -> dict[str, set[int]]:
        """Free what a worker has, but for the streams in `keep`: each with the peers that lose it."""
        freed = {
            stream: holding.peers
            for stream, holding in self._holdings.items()
            if holding.worker == worker and stream not in (keep or {})
        }
        for stream in freed:
            del self._holdings[stream]
        return freed

    def _give(self, stream: str, worker: int) -> Holding:
        self._epoch += 1
        earlier = self._holdings.get(stream)
        peers = earlier.peers - {worker} if earlier is not None else set()
        self._holdings[stream] = holding = Holding(worker, self._epoch, peers)
        return holding
