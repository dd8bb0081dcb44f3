"""The configuration file: every key documented with its default, everything else refused by name."""

import contextlib
import dataclasses
import re
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import MAX_CONFIG_BYTES, Settings, SettingsError, _plain, load_settings, parse_settings

FILE = Path(__file__).resolve().parents[2] / "config" / "custos.yaml"


def _leaves(value, path=""):
    """(path, value) of every key, of a mapping or of a dataclass."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, dict):
        yield path, list(value) if isinstance(value, tuple) else value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{path}.{key}" if path else key)


def test_the_file_has_every_key_and_its_default():
    documented = dict(_leaves(yaml.safe_load(FILE.read_text(encoding="utf-8"))))
    assert documented == dict(_leaves(Settings()))


def test_types_are_the_same_too():
    """0 and 0.0 and False are equal in Python, and different to who reads the file."""
    documented = {
        path: type(value) for path, value in _leaves(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    }
    declared = {path: type(value) for path, value in _leaves(Settings())}
    differing = {path for path in declared if documented[path] is not declared[path]}
    assert all({documented[path], declared[path]} == {int, float} for path in differing)


def test_every_key_is_explained_where_it_stands():
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\s*$|\s*#|\s*[a-z_]+:", line) for line in lines)
    sections = [line for line in lines if re.match(r"[a-z_]+:(\s|$)", line)]
    assert {line.partition(":")[0] for line in sections} == {
        field.name for field in dataclasses.fields(Settings)
    }


def test_a_relative_path_is_relative_to_the_file():
    settings = load_settings(FILE)
    assert settings.data == str(FILE.parent / "data")
    assert settings.policies == str(FILE.parent / "policies.yaml")


def test_an_empty_file_is_all_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing\n")
    settings = load_settings(tmp_path / "c.yaml")
    assert dataclasses.replace(settings, data="data", policies="policies.yaml") == Settings()


def _every_section():
    def sections(shape, path):
        yield path
        for name, hint in typing.get_type_hints(shape).items():
            inner = _plain(hint)
            if dataclasses.is_dataclass(inner):
                yield from sections(inner, (*path, name))

    return list(sections(Settings, ()))


def _nested(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.parametrize("path", _every_section(), ids=".".join)
def test_an_unknown_key_is_refused_by_its_path(path):
    with pytest.raises(SettingsError, match=re.escape(".".join((*path, "colour")) + ": unknown key")):
        parse_settings(_nested((*path, "colour"), 1))


@pytest.mark.parametrize(("path", "default"), list(_leaves(Settings())))
def test_a_wrong_type_is_refused_by_its_path(path, default):
    wrong = {"x": 1} if not isinstance(default, int | float) or default is None else "x"
    with pytest.raises(SettingsError) as caught:
        parse_settings(_nested(path.split("."), wrong))
    assert path.rpartition(".")[2] in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        {"workers": -1}, {"workers": 65}, {"workers": True}, {"http": {"port": -1}},
        {"http": {"port": 65536}}, {"rtsp_server": {"port": 65536}}, {"rtmp_server": {"port": -1}},
        {"tls": {"certificate": "c.pem"}}, {"http": {"trusted_proxies": ["x"]}},
        {"http": {"public_url": "ftp://x"}}, {"http": {"public_url": "javascript:alert(1)"}},
        {"egress": {"allowed_networks": ["10.0.0.0/33"]}}, {"egress": {"allowed_networks": "10.0.0.0/8"}},
        {"sessions": {"lost_seconds": -1}}, {"hub": {"gop_cache_bytes": -1}}, {"log": {"level": "loud"}},
        {"viewer": {"reader": {"max_age_seconds": -0.1}}}, [], "x", 1, {"http": []}, {"http": None}, {1: 2},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(document):
    with pytest.raises(SettingsError):
        parse_settings(document)


def test_the_patrol_neither_rests_forever_nor_races():
    for rows in (1.0, 10_000.0):
        parse_settings({"ledger": {"patrol_rows_per_second": rows}})
    for rows in (0.999, 10_000.1, float("nan")):
        with pytest.raises(SettingsError):
            parse_settings({"ledger": {"patrol_rows_per_second": rows}})


@pytest.mark.parametrize(
    "text",
    [
        b"a: [", b"\xff\xfe\x00", b"a: !!python/object/apply:os.system [id]", b"[" * 2_000, b"a: &a [*a]",
        b"http: {port: 1}\nhttp: {port: 2}\n x", b"#" * (MAX_CONFIG_BYTES + 1), b"\x00",
    ],
)  # fmt: skip
def test_what_is_no_configuration_names_the_file(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    with pytest.raises(SettingsError, match=re.escape(str(path))):
        load_settings(path)


def test_a_file_of_the_largest_size_is_read(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"#" * MAX_CONFIG_BYTES)
    assert load_settings(path).workers == 0


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SettingsError, match=re.escape(str(path))):
            load_settings(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([f.name for f in dataclasses.fields(Settings)]) | st.text(max_size=5), inner
        )
    ),
    max_leaves=10,
)


@given(_JSON)
def test_only_our_own_error_escapes(document):
    with contextlib.suppress(SettingsError):
        parse_settings(document)
