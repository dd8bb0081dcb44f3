"""The hub: every camera's live stream, from one source to any number of bounded readers.

Importing this is a privilege (see the import contracts): whoever holds a `Stream` sees the camera.
"""

from streams.hub.bounded_reader import BoundedReader, ReaderSettings, ReaderTransport
from streams.hub.fan_out import MediaReader, Reader, ReaderFailedError, Tally, UnitReader
from streams.hub.hub import Hub
from streams.hub.merging import MergeControl
from streams.hub.settings import HubSettings
from streams.hub.stream import Stream

__all__ = [
    "BoundedReader",
    "Hub",
    "HubSettings",
    "MediaReader",
    "MergeControl",
    "Reader",
    "ReaderFailedError",
    "ReaderSettings",
    "ReaderTransport",
    "Stream",
    "Tally",
    "UnitReader",
]
