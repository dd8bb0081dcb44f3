"""Why a node cannot run.

NodeError
├── DataFolderLockedError   another node runs on this data folder
├── AddressInUseError       another program listens on the address
├── StartFailedError        a child ended, or was silent too long, before it was ready
├── ChildKeepsDyingError    a child died too often in too short a time
└── NotDrainedError         a child did not end in time, or was killed by a second signal
"""


class NodeError(Exception):
    """The node cannot run; the message is for the person who started it."""

    code = "node_error"


class DataFolderLockedError(NodeError):
    code = "data_folder_locked"


class AddressInUseError(NodeError):
    code = "address_in_use"


class StartFailedError(NodeError):
    code = "start_failed"


class ChildKeepsDyingError(NodeError):
    code = "child_keeps_dying"


class NotDrainedError(NodeError):
    code = "not_drained"
