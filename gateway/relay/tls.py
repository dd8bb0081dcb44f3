"""TLS on the workers' ports: TLS 1.2 or later, from PEM files that may be replaced while the worker runs."""

import asyncio
import ssl
from pathlib import Path

import structlog

_RENEWAL_CHECK_SECONDS = 30.0
HANDSHAKE_SECONDS = 10.0
"""How long a client may take to shake hands; aiohttp's deadlines begin after it."""

_log = structlog.get_logger(__name__)


class TlsError(Exception):
    """The certificate and its key cannot be used; the message names the file, never its content."""

    code = "tls_invalid"


class Certificate:
    """A server's certificate; `context` stays the same when the files are renewed."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises TlsError."""
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._loaded = self._state()
        self._load(self.context)

    def renew(self) -> bool:
        """Load the files again if they have changed; blocking.

        Raises TlsError; the old ones stay in use.
        """
        state = self._state()
        if state == self._loaded:
            return False
        # Tried apart first: a context into which half of a pair was loaded serves nobody.
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context)
        self._loaded = state
        return True

    async def watch(self) -> None:
        """Take up renewed files until cancelled."""
        while True:
            await asyncio.sleep(_RENEWAL_CHECK_SECONDS)
            try:
                if await asyncio.to_thread(self.renew):
                    _log.info("certificate_renewed", certificate=str(self._certificate))
            except TlsError as error:
                _log.error("certificate_not_renewed", error=str(error))

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A password would be asked for on the terminal, which a worker does not have.
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            reason = error.strerror or error.__class__.__name__ if isinstance(error, OSError) else str(error)
            raise TlsError(f"tls: {self._certificate} with {self._key}: {reason}") from None

    def _state(self) -> tuple[tuple[int, int], ...]:
        try:
            states = [path.stat() for path in (self._certificate, self._key)]
        except OSError as error:
            raise TlsError(f"tls: {error.filename}: {error.strerror}") from None
        return tuple((state.st_mtime_ns, state.st_ino) for state in states)


def _no_password() -> str:
    raise ValueError("the key is protected by a password")
