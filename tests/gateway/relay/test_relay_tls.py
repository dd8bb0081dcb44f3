"""Certificates: renewed without a restart, refused in plain words."""

import contextlib
import os
import ssl

import pytest
from support.certificates import write_certificate

from gateway.relay.tls import Certificate, TlsError


def _presented(certificate):
    """What a client sees in a handshake through memory."""
    client_side, server_side = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client = client_context.wrap_bio(client_side, server_side)
    server = certificate.context.wrap_bio(server_side, client_side, server_side=True)
    for _ in range(4):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return client.getpeercert(binary_form=True), client.version()


def test_renewed_files_are_taken_up(tmp_path):
    certificate = Certificate(*write_certificate(tmp_path))
    assert certificate.renew() is False
    before, version = _presented(certificate)
    assert version in {"TLSv1.2", "TLSv1.3"}
    paths = write_certificate(tmp_path)
    for path in paths:
        os.utime(path, (1, 1))
    assert certificate.renew() is True
    assert _presented(certificate)[0] != before


def test_files_that_are_no_pair_leave_the_old_ones_in_use(tmp_path):
    certificate = Certificate(*write_certificate(tmp_path))
    before = _presented(certificate)
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(other)[1].replace(tmp_path / "key.pem")
    with pytest.raises(TlsError, match="KEY_VALUES_MISMATCH"):
        certificate.renew()
    assert _presented(certificate) == before


@pytest.mark.parametrize("what", ["absent", "empty", "protected", "no pair"])
def test_what_cannot_be_used_is_named(tmp_path, what):
    paths = write_certificate(tmp_path, password=b"secret-canary" if what == "protected" else None)
    if what == "absent":
        paths[1].unlink()
    elif what == "empty":
        paths[0].write_bytes(b"")
    elif what == "no pair":
        other = tmp_path / "other"
        other.mkdir()
        paths = paths[0], write_certificate(other)[1]
    with pytest.raises(TlsError, match="tls: ") as raised:
        Certificate(*paths)
    assert "secret-canary" not in str(raised.value)
