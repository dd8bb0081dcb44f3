"""The documents say only what is there: commands, routes, keys, files, limits."""

import re
from functools import cache
from pathlib import Path

import pytest
import typer.main
import yaml

from gateway.cli import app
from gateway.live_session import EndReason
from gateway.problems import codes
from gateway.relay.refusals import PROBLEMS
from gateway.settings import parse_settings
from gateway.web import ROUTES
from gateway.web.routing import API
from streams.errors import (
    LimitExceededError,
    ProtocolError,
    SourceBugError,
    SourceRefusedError,
    SourceUnreachableError,
    UnsupportedError,
)
from streams.hub.faults import FROZEN, PACKET_LOSS, TIMESTAMP_JUMP

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = (
    *READMES,
    "ARCHITECTURE.md",
    "DECISIONS.md",
    "THREAT_MODEL.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
PACKAGES = ("gateway", "policies", "streams", "analytics")
CAMERA_ERRORS = {
    error.code
    for error in (
        LimitExceededError,
        ProtocolError,
        SourceBugError,
        SourceRefusedError,
        SourceUnreachableError,
        UnsupportedError,
    )
}
FILE_ENDINGS = {"key", "pub", "py", "yaml"}

every_document = pytest.mark.parametrize("name", DOCUMENTS)
every_readme = pytest.mark.parametrize("name", READMES)


@cache
def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name):
    """The fenced code blocks."""
    return re.findall(r"^```\w*\n(.*?)^```", text_of(name), re.MULTILINE | re.DOTALL)


def prose(name):
    return re.sub(r"^```.*?^```", "", text_of(name), flags=re.MULTILINE | re.DOTALL)


def inline_code(name):
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose(name))]


def code(name):
    """Everything that is set as code: lines of blocks, and inline."""
    return [*(line for block in blocks(name) for line in block.splitlines()), *inline_code(name)]


@every_document
def test_make_targets_exist(name):
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    named = {target for text in code(name) for target in re.findall(r"^make ([a-z]+)", text)}
    assert named <= targets
    if name in READMES:
        assert {"demo", "test"} <= named


def test_set_up_is_exactly_two_commands():
    for name in READMES:
        assert blocks(name)[0].splitlines() == ["make demo", "make test"]


@every_document
def test_commands_and_their_options_exist(name):
    custos = typer.main.get_command(app)
    for text in code(name):
        for words in re.findall(r"(?:^|/)custos((?: [^ `|\\]+)+)", text):
            command = custos
            for word in words.split():
                if word in getattr(command, "commands", {}):
                    command = command.commands[word]
            assert command is not custos, f"custos{words}"
            assert not getattr(command, "commands", None), f"custos{words} names no whole command"
            options = {option for parameter in command.params for option in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", words)) <= options, f"custos{words}"


@every_readme
def test_option_tables_are_the_commands_own(name):
    custos = typer.main.get_command(app)
    rows = re.findall(r"^\| `custos ([a-z -]+)` \| (.*) \|$", text_of(name), re.MULTILINE)
    leaves = set()
    for words, what in rows:
        command = custos
        for word in words.split():
            command = command.commands[word]
        leaves.add(words)
        own = {option for parameter in command.params for option in parameter.opts if option[0] == "-"}
        assert set(re.findall(r"`(--[a-z-]+)`", what)) == own, words
    assert leaves == set(_leaves(custos, ()))


def _leaves(command, path):
    children = getattr(command, "commands", None)
    if not children:
        return [" ".join(path)]
    return [leaf for word, child in children.items() for leaf in _leaves(child, (*path, word))]


@every_document
def test_routes_exist(name):
    there = {(route.method, route.path) for route in ROUTES}
    for method, path in _routes_in(name):
        assert {(method, path), (method, API + path)} & there, f"{method} {path}"


@every_readme
def test_readme_names_every_route(name):
    named = _routes_in(name)
    missing = [
        f"{route.method} {route.path}"
        for route in ROUTES
        if not {(route.method, route.path), (route.method, route.path.removeprefix(API))} & named
    ]
    assert not missing


def _routes_in(name):
    found = (re.fullmatch(r"(GET|POST|PATCH|DELETE) (/[^ ?]+)", text) for text in inline_code(name))
    return {match.groups() for match in found if match}


@every_document
def test_configuration_keys_exist(name):
    settings = yaml.safe_load(text_of("config/custos.yaml"))
    sections = {key for key, value in settings.items() if isinstance(value, dict)}
    for text in inline_code(name):
        if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)+(\.\*)?", text) or text.split(".")[-1] in FILE_ENDINGS:
            continue
        first, *rest = text.removesuffix(".*").split(".")
        if first not in sections:
            continue
        found = settings[first]
        for key in rest:
            assert isinstance(found, dict), text
            assert key in found, text
            found = found[key]


@every_readme
def test_example_configurations_are_good(name):
    examples = re.findall(r"^```yaml\n(.*?)^```", text_of(name), re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        parse_settings(yaml.safe_load(example))


@every_document
def test_named_limits_and_metrics_of_the_api_exist(name):
    there = {*codes(), *PROBLEMS}
    assert {text for text in inline_code(name) if re.fullmatch(r"limit_[a-z_]+", text)} <= {
        *there,
        "limit_exceeded",
    }
    metrics = text_of("gateway/metrics.py")
    named = {text for text in inline_code(name) if re.fullmatch(r"custos_[a-z_]+", text)}
    assert all(f'"{text.removesuffix("_total")}"' in metrics for text in named)


@every_readme
def test_explained_ends_and_errors_exist(name):
    explained = [
        set(re.findall(r"`([a-z_]+)`", "".join(line.split("|")[1] for line in table.splitlines())))
        for table in re.findall(r"(?:^\|.*\n)+", text_of(name), re.MULTILINE)
    ]
    (ends,) = (table for table in explained if "slow" in table)
    (errors,) = (table for table in explained if "source_refused" in table)
    assert ends <= {str(reason) for reason in EndReason}
    assert errors - {"error", "fault"} == CAMERA_ERRORS | {FROZEN, TIMESTAMP_JUMP, PACKET_LOSS}


@every_document
def test_relative_links_resolve(name):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(name)):
        if "://" not in target:
            assert (ROOT / target).exists(), target


@every_document
def test_named_files_and_modules_exist(name):
    for text in inline_code(name):
        if re.fullmatch(r"(gateway|policies|streams|analytics|config|tests)/[\w./-]+", text):
            assert (ROOT / text).exists(), text
        if text.startswith("python -m "):
            assert _is_module(text.split()[2]), text
        if re.fullmatch(rf"({'|'.join(PACKAGES)})(\.[a-z_0-9]+)+", text):
            assert _is_module(text), text


def _is_module(dotted):
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@every_document
def test_named_limits_exist(name):
    limits = {text for text in inline_code(name) if re.fullmatch(r"(MAX|JOB)_[A-Z_]+", text)}
    assert limits <= _constants()


@cache
def _constants():
    sources = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {
        constant
        for path in sources
        if "node_modules" not in path.parts
        for constant in re.findall(
            r"^([A-Z_]+)(?:: Final)? *=", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }


def test_the_two_readmes_are_one():
    english, chinese = READMES
    assert blocks(english) == blocks(chinese)
    assert _headings(english) == _headings(chinese)
    assert _tables(english) == _tables(chinese)
    assert text_of(english).count("\n- ") == text_of(chinese).count("\n- ")
    assert set(inline_code(english)) == set(inline_code(chinese))


def _headings(name):
    return [line.split()[0] for line in prose(name).splitlines() if line.startswith("#")]


def _tables(name):
    """The first cell's code of every row: what the row is about."""
    return [
        re.findall(r"`([^`]+)`", line.split("|")[1])
        for line in prose(name).splitlines()
        if line.startswith("|")
    ]


def test_changelog_has_an_unreleased_part():
    assert re.search(r"^## \[Unreleased\]$", text_of("CHANGELOG.md"), re.MULTILINE)


def test_decisions_are_numbered_in_order():
    numbers = [int(n) for n in re.findall(r"^\*\*(\d+)\. ", text_of("DECISIONS.md"), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
