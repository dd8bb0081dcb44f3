"""The master key: made once, private, and what it seals opens for its camera only."""

import pytest

from gateway.keys import KEY_BYTES, NONCE_BYTES, InstallationKeys, KeyFileError


def _path(folder):
    return folder / "keys" / "master.key"


def test_made_once_for_this_user_only(tmp_path):
    sealed = InstallationKeys.open(tmp_path).seal("c1", "p\u0000w 密")
    assert _path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert _path(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert len(_path(tmp_path).read_bytes()) == KEY_BYTES
    again = InstallationKeys.open(tmp_path)
    assert again.unseal("c1", sealed) == "p\u0000w 密"
    assert again.mark_key == InstallationKeys.open(tmp_path).mark_key
    assert again.mark_key not in _path(tmp_path).read_bytes()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    InstallationKeys.open(tmp_path)
    _path(tmp_path).chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        InstallationKeys.open(tmp_path)


@pytest.mark.parametrize("length", [0, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_key_of_another_length_is_refused(tmp_path, length):
    InstallationKeys.open(tmp_path)
    _path(tmp_path).write_bytes(b"x" * length)
    with pytest.raises(KeyFileError, match="32 bytes"):
        InstallationKeys.open(tmp_path)


def test_what_was_altered_exchanged_or_cut_does_not_open(tmp_path):
    keys, other = InstallationKeys.open(tmp_path), InstallationKeys(b"k" * KEY_BYTES)
    sealed = keys.seal("c1", "password")
    assert sealed != keys.seal("c1", "password")
    attempts = [
        (keys, "c2", sealed), (other, "c1", sealed), (keys, "c1", sealed[:-1]), (keys, "c1", b""),
        (keys, "c1", sealed[:NONCE_BYTES]), (keys, "c1", sealed[: NONCE_BYTES - 5]),
        *((keys, "c1", sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :]) for i in range(len(sealed))),
    ]  # fmt: skip
    for opener, camera, data in attempts:
        with pytest.raises(KeyFileError) as caught:
            opener.unseal(camera, data)
        assert "password of camera" in str(caught.value)
