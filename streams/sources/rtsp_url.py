"""The URLs of an RTSP camera: whatever it names, nothing is ever sent to another host."""

from urllib.parse import urlsplit, urlunsplit

from streams.errors import LimitExceededError, ProtocolError
from streams.wire.rtsp import MAX_URL_BYTES


def confine_url(url: str, origin: str) -> str:
    """The path and query of `url` at the scheme, host and port of `origin`.

    Cameras behind address translation name an address of their own; others name a stranger's. Nothing is
    ever sent there. Raises ProtocolError for what is no URL.
    """
    try:
        path, query = urlsplit(url)[2:4]
        scheme, netloc = urlsplit(origin)[:2]
    except ValueError:
        raise ProtocolError("the camera names a malformed URL") from None
    confined = urlunsplit((scheme, netloc, path, query, ""))
    if not confined.isascii() or not confined.isprintable() or " " in confined:
        raise ProtocolError("the camera names a malformed URL")
    if len(confined) > MAX_URL_BYTES:
        raise LimitExceededError("the camera names an endless URL")
    return confined


def control_url(base: str, control: str | None, origin: str) -> str:
    """Where a track or the presentation is controlled (RFC 2326 §C.1.1), confined to `origin`'s host.

    A relative control is appended, query or not, as every camera and player does; RFC 3986 would replace
    the base's last segment. Raises ProtocolError.
    """
    if control is None or control == "*":
        return base
    if "://" in control:
        return confine_url(control, origin)
    separator = "" if base.endswith("/") or control.startswith(("/", "?")) else "/"
    return confine_url(base + separator + control, origin)
