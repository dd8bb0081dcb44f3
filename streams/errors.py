"""Every error that may leave the media plane.

StreamError
├── ProtocolError           the peer sent bytes that its protocol does not allow        (retry: yes)
│   └── LimitExceededError  the peer exceeded one of our named limits                   (retry: yes)
├── SourceUnreachableError  no connection, or it was lost, or it went silent             (retry: yes)
├── SourceRefusedError      the camera refused us: credentials, unknown path, redirect  (retry: slowly)
│   └── LoginRefusedError   it rejected our password, and may lock the account          (retry: slowly)
├── UnsupportedError        nothing that we can relay: codec, scheme, address           (retry: slowly)
│   └── TransportRefusedError  of `streams.sources.rtsp_connection`: 461 to SETUP       (retry: over UDP)
├── DecodeError             of `streams.decode`: a picture that cannot be decoded       (retry: the next one)
└── SourceBugError          a bug of ours that this camera's bytes met                   (retry: slowly)

`code` is stable and safe to show; the message never contains a credential or an address with one.
"""


class StreamError(Exception):
    """Base of all: whatever went wrong lies with the camera, the network or its configuration."""

    code = "stream_error"
    retry_slowly = False


class ProtocolError(StreamError):
    """The peer violated its protocol."""

    code = "protocol_error"


class LimitExceededError(ProtocolError):
    """The peer exceeded a named limit."""

    code = "limit_exceeded"


class SourceUnreachableError(StreamError):
    """The camera cannot be reached, closed the connection, or fell silent."""

    code = "source_unreachable"


class SourceRefusedError(StreamError):
    """The camera answered, and refused."""

    code = "source_refused"
    retry_slowly = True


class LoginRefusedError(SourceRefusedError):
    """The camera rejected the configured credentials."""


class UnsupportedError(StreamError):
    """The camera offers nothing that the gateway can relay, or its address is not allowed."""

    code = "unsupported"
    retry_slowly = True


class SourceBugError(StreamError):
    """A source ended with something that is no StreamError: a bug of ours, which this camera met."""

    code = "source_bug"
    retry_slowly = True
