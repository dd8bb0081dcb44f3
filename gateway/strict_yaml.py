"""YAML that people check in: plain values, each with its line, and nothing that YAML would forgive.

Refused are equal keys of one mapping (YAML keeps the last without a word), keys that are not text (`on` and
`yes` are truth values), aliases (a small file could be a huge value) and tags.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_FLOW_DEPTH = 32
"""Brackets inside brackets: PyYAML's time grows with the square of it."""
_KINDS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class Finding(msgspec.Struct, frozen=True):
    """`line` counts from 1; 0 is the whole file. `code` is stable."""

    line: int
    code: str
    message: str


class FileRefusedError(Exception):
    """A file that cannot be used. `findings` has at least one; `code` is the first one's."""

    def __init__(self, path: Path, findings: list[Finding]) -> None:
        self.path = path
        self.findings = findings
        self.code = findings[0].code
        super().__init__(
            "\n".join(f"{path}:{found.line}: {found.code}: {found.message}" for found in findings)
        )


class Document(msgspec.Struct, frozen=True):
    """`lines`: of each value, by its path as msgspec writes it (`$.users[3].id`)."""

    value: Any
    lines: Mapping[str, int]

    def line(self, path: str) -> int:
        """Of the value at a path, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["))] if path != "$" else ""
        return self.lines.get(path, 0)


class _Loader(yaml.SafeLoader):
    def fetch_flow_collection_start(self, token_class: Any) -> None:
        super().fetch_flow_collection_start(token_class)
        if self.flow_level > MAX_FLOW_DEPTH:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply", self.get_mark())


class _Unusable(Exception):  # noqa: N818 - becomes a Finding
    def __init__(self, line: int, code: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(line, code, message)


def read_yaml(path: Path) -> Document:
    """Raises FileRefusedError: file_unreadable, file_too_large, yaml_invalid, yaml_duplicate_key, yaml_key,
    yaml_alias, yaml_tag.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        told = error.strerror or type(error).__name__
        raise FileRefusedError(path, [Finding(0, "file_unreadable", told)]) from error
    if len(content) > MAX_FILE_BYTES:
        raise FileRefusedError(path, [Finding(0, "file_too_large", f"more than {MAX_FILE_BYTES} bytes")])
    try:
        return _parse(content)
    except _Unusable as error:
        raise FileRefusedError(path, [error.finding]) from None


def _parse(content: bytes) -> Document:
    lines: dict[str, int] = {}
    try:
        loader = _Loader(content.decode("utf-8-sig"))
        node = loader.get_single_node()
        value = None if node is None else _value(loader, node, "$", lines, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Unusable(mark.line + 1 if mark else 0, "yaml_invalid", error.problem or "not YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _Unusable(0, "yaml_invalid", str(error).partition("\n")[0]) from None
    except RecursionError:
        raise _Unusable(0, "yaml_invalid", "nested too deeply") from None
    return Document(value, lines)


def _value(
    loader: yaml.SafeLoader, node: yaml.Node, path: str, lines: dict[str, int], seen: set[int]
) -> object:
    if id(node) in seen:
        raise _Unusable(_line(node), "yaml_alias", "aliases are not allowed here")
    seen.add(id(node))
    lines[path] = _line(node)
    if isinstance(node, yaml.ScalarNode):
        try:
            return loader.construct_object(node)
        except yaml.constructor.ConstructorError:
            raise _Unusable(_line(node), "yaml_tag", f"tag {node.tag} is not allowed here") from None
        except ValueError as error:  # a date that is none
            raise _Unusable(_line(node), "yaml_invalid", str(error)) from None
    if node.tag not in _KINDS:
        raise _Unusable(_line(node), "yaml_tag", f"tag {node.tag} is not allowed here")
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, item, f"{path}[{index}]", lines, seen) for index, item in enumerate(node.value)
        ]
    mapping: dict[str, object] = {}
    for key, value in node.value:
        if key.tag != "tag:yaml.org,2002:str":
            raise _Unusable(_line(key), "yaml_key", "a key must be text: put it in quotes")
        if key.value in mapping:
            raise _Unusable(_line(key), "yaml_duplicate_key", f"{key.value} stands here twice")
        mapping[key.value] = _value(loader, value, f"{path}.{key.value}", lines, seen)
    return mapping


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
