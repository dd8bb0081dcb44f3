"""The commands of grants, explanations and policy files, and the files that they read."""

import asyncio
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.controls import PASSWORD, ROOT, open_city
from support.seals import freeze_grants
from typer.testing import CliRunner

from gateway import strict_yaml
from gateway.cli import app
from gateway.policy_check import hold
from gateway.policy_file import MAX_FINDINGS, read_policy
from gateway.strict_yaml import MAX_FLOW_DEPTH, FileRefusedError, read_yaml

CITY = """\
roles_file: policies.yaml
at: 2026-01-05T16:00:00+08:00
departments:
  - {id: city}
  - {id: traffic, parent: city}
  - {id: urban, parent: city}
users:
  - {id: chen, department: traffic, roles: [department-administrator]}
  - {id: li, department: urban, roles: [operator]}
  - {id: gone, department: urban, enabled: false}
groups:
  - {id: crossroads}
cameras:
  - {id: gate, department: traffic, groups: [crossroads], tags: [防汛]}
  - {id: bridge, department: traffic, sharing: {mode: unconditional, departments: [urban]}}
  - {id: hall, department: traffic, sharing: {mode: not-shared}}
grants:
  - id: g1
    subject: {kind: department, id: urban}
    object: {kind: tag, id: 防汛}
    actions: [live:view]
    purposes: [patrol]
    valid_to: 2026-02-01T00:00:00+08:00
    schedule: {zone: Asia/Shanghai, windows: [{days: [1, 2, 3, 4, 5], start: "08:00", end: "18:00"}]}
    granted_by: chen
  - {id: g2, subject: {kind: user, id: li}, object: {kind: camera, id: hall}, actions: [live:view]}
expect:
  - {user: li, camera: gate, purpose: patrol, effect: allow, reason: granted}
  - {user: li, camera: gate, effect: deny, reason: purpose_not_allowed}
  - {user: li, camera: gate, purpose: patrol, at: 2026-01-05T10:00:00Z, effect: deny, reason: outside_window}
  - {user: li, camera: gate, purpose: patrol, at: 2026-02-01T00:00:00+08:00, effect: deny}
  - {user: li, camera: bridge, effect: allow, reason: shared}
  - {user: li, camera: hall, effect: deny, reason: not_shared}
  - {user: gone, camera: gate, purpose: patrol, effect: deny, reason: principal_disabled}
  - {user: chen, camera: gate, action: camera:manage, effect: allow, reason: role}
  - {user: chen, camera: gate, effect: deny}
  - {user: li, camera: nowhere, effect: deny, reason: unknown_resource}
"""


@pytest.fixture
def city(tmp_path):
    (tmp_path / "policies.yaml").write_text((ROOT / "config" / "policies.yaml").read_text())
    path = tmp_path / "city.yaml"
    path.write_text(CITY)
    return path


def _run(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def test_a_policy_that_does_what_is_expected(city):
    result = _run("policy", "test", city)
    assert (result.exit_code, result.stdout) == (0, "10 of 10 as expected\n")


def test_what_came_out_otherwise_is_shown_by_its_line(city):
    city.write_text(CITY.replace("effect: allow, reason: shared", "effect: deny"))
    result = _run("policy", "test", city, "--json")
    assert result.exit_code == 1
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    (failed,) = [outcome for outcome in outcomes if not outcome["passed"]]
    line = 1 + city.read_text().splitlines().index("  - {user: li, camera: bridge, effect: deny}")
    assert (failed["line"], failed["expected"], failed["decided"], failed["rule"]) == (
        line, "deny", "allow shared", "sharing:bridge",
    )  # fmt: skip
    result = _run("policy", "test", city)
    assert result.exit_code == 1
    assert "9 of 10 as expected" in result.stdout
    # a right effect for another reason than the one that is named is not what was expected
    city.write_text(CITY.replace("reason: purpose_not_allowed", "reason: grant_expired"))
    assert _run("policy", "test", city).exit_code == 1


@pytest.mark.parametrize(
    ("old", "new", "code", "at"),
    [
        ("{id: city}", "{id: city, id: town}", "yaml_duplicate_key", "{id: city, id: town}"),
        ("enabled: false", "enabled: maybe", "field_invalid", "maybe"),
        ("actions: [live:view]\n", "actions: [live:fly]\n", "field_invalid", "live:fly"),
        ("purposes: [patrol]", "purpose: [patrol]", "field_invalid", "id: g1"),
        ("parent: city}\n  - {id: urban", "parent: town}\n  - {id: urban", "unknown_department", "town"),
        ("{id: city}", "{id: city, parent: traffic}", "tree_invalid", "id: traffic, parent: city"),
        ("{id: urban, parent: city}", "{id: traffic, parent: city}", "duplicate_id", None),
        ("roles: [operator]", "roles: [king]", "unknown_role", "king"),
        ("groups: [crossroads]", "groups: [squares]", "unknown_group", "squares"),
        ("departments: [urban]}", "departments: [rural]}", "unknown_department", "rural"),
        ("{kind: user, id: li}", "{kind: user, id: lu}", "unknown_user", "id: lu"),
        ("id: hall}, actions", "id: mall}, actions", "unknown_camera", "mall"),
        ("kind: tag, id: 防汛", "kind: tag, id: 防火", "unknown_tag", "防火"),
        ("granted_by: chen", "granted_by: cheng", "unknown_user", "cheng"),
        ("granted_by: chen", "parent: g9", "unknown_grant", "g9"),
        ("zone: Asia/Shanghai", "zone: Atlantis", "grant_malformed", "id: g1"),
        ("valid_to: 2026-02-01T00:00:00+08:00", "valid_to: 2026-02-01T00:00:00", "field_invalid", "valid_to"),
        (
            "valid_to: 2026-02-01T00:00:00+08:00",
            "valid_to: 2026-02-31T00:00:00+08:00",
            "yaml_invalid",
            "02-31",
        ),
        (
            "at: 2026-01-05T16:00:00+08:00\n",
            "",
            "time_missing",
            "{user: li, camera: gate, purpose: patrol, eff",
        ),
        ("roles_file: policies.yaml", "roles_file: nope.yaml", "file_unreadable", None),
        (
            "roles_file: policies.yaml",
            "roles: {a: {department: ['live:view']}}",
            "roles_invalid",
            "roles: {a",
        ),
        (
            "roles_file: policies.yaml",
            "roles_file: policies.yaml\nseparate: [[operator, auditor]]",
            "roles_invalid",
            "roles_file",
        ),
        (
            "roles_file: policies.yaml",
            "roles: {operator: {}}\nseparate: [[operator]]",
            "field_invalid",
            "separate",
        ),
        ("{id: city}", "&a {id: city}\n  - *a", "yaml_alias", None),
        ("{id: city}", "!!python/object/apply:os.system [x]", "yaml_tag", "!!python"),
        ("{id: city}", "!!python/name:os.system x", "yaml_tag", "!!python"),
        ("{id: city}", "{id: city, on: x}", "yaml_key", "on: x"),
        ("{id: city}", "{id: [city", "yaml_invalid", None),
        ("{id: city}", "[" * 5000, "yaml_invalid", None),
        ("{id: city}", "- " * 5000, "yaml_invalid", None),
        ("{id: city}", "{id: \x00}", "yaml_invalid", None),
    ],
)
def test_each_mistake_has_its_line_and_its_code(city, old, new, code, at):
    assert old in CITY
    text = CITY.replace(old, new, 1)
    city.write_text(text)
    result = _run("policy", "test", city)
    assert result.exit_code == 2
    found = [line.split(":", 3)[1:3] for line in result.stderr.splitlines()]
    codes = [code.strip() for _, code in found]
    assert code in codes, result.stderr
    if at is not None:
        (line,) = [number for number, each in found if each.strip() == code][:1]
        assert at in text.splitlines()[int(line) - 1]


def test_limits_of_a_file(city, monkeypatch):
    most = 4000  # the policies file is smaller
    monkeypatch.setattr(strict_yaml, "MAX_FILE_BYTES", most)
    filled = CITY + "#" * (most - len(CITY.encode()))
    city.write_text(filled)
    read_policy(city)
    city.write_text(filled + "#")
    with pytest.raises(FileRefusedError) as refused:
        read_policy(city)
    assert refused.value.code == "file_too_large"


@pytest.mark.parametrize(
    ("depth", "code"), [(MAX_FLOW_DEPTH, "field_invalid"), (MAX_FLOW_DEPTH + 1, "yaml_invalid")]
)
def test_limits_of_depth(tmp_path, depth, code):
    path = tmp_path / "p.yaml"
    path.write_text("[" * depth + "]" * depth)
    with pytest.raises(FileRefusedError) as refused:
        read_policy(path)
    assert refused.value.code == code


@pytest.mark.parametrize(("wrong", "told"), [(MAX_FINDINGS, MAX_FINDINGS), (MAX_FINDINGS + 1, MAX_FINDINGS)])
def test_limits_of_findings(tmp_path, wrong, told):
    path = tmp_path / "p.yaml"
    path.write_text("users:\n" + "".join(f"  - {{id: u{n}, department: nope}}\n" for n in range(wrong)))
    with pytest.raises(FileRefusedError) as refused:
        read_policy(path)
    assert [found.line for found in refused.value.findings] == list(range(2, 2 + told))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_a_file_holds_only_our_error_escapes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        read_yaml(path)
        hold(read_policy(path))
    except FileRefusedError as error:
        assert error.findings  # noqa: PT017


def test_what_a_change_of_a_policy_gives_and_takes(city, tmp_path):
    new = tmp_path / "new.yaml"
    new.write_text(
        CITY.replace("mode: not-shared", "mode: conditional").replace(
            "departments: [urban]}", "departments: []}"
        )
    )
    at = ("--at", "2026-01-05T16:00:00+08:00")
    result = _run("policy", "diff", city, new, "--json", *at)
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"change": "loses", "user": "li", "camera": "bridge", "action": "live:view"},
        {"change": "gains", "user": "li", "camera": "hall", "action": "live:view"},
    ]
    result = _run("policy", "diff", city, new, *at)
    assert "loses" in result.stdout
    assert "gains" in result.stdout
    result = _run("policy", "diff", city, city, *at)
    assert (result.exit_code, result.stdout) == (0, "no difference\n")
    # by night nobody watches either way
    for wrong in ("noon", "2026-01-05T16:00:00"):
        assert _run("policy", "diff", city, new, "--at", wrong).exit_code == 2


def test_what_a_change_of_a_policies_file_gives_and_takes(tmp_path):
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("roles:\n  a: {department: ['camera:read']}\n  b: {installation: ['audit:read']}\n")
    new.write_text("roles:\n  a: {department: ['camera:manage']}\n  c: {}\n")
    result = _run("policy", "diff", old, new, "--json")
    assert result.exit_code == 1
    changes = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(c["role"], c["change"], c["scope"], c["action"]) for c in changes] == [
        ("a", "gains", "department", "camera:manage"),
        ("a", "loses", "department", "camera:read"),
        ("b", "loses", "installation", "audit:read"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("grant", "create", "--subject", "li", "--object", "camera:gate", "--action", "live:view"),
        ("grant", "create", "--subject", "user:li", "--object", "camera:", "--action", "live:view"),
        ("grant", "create", "--subject", "user:li", "--object", "camera:gate", "--action", "live:view",
         "--window", "mon@08:00-18:00"),
        ("grant", "list", "--subject", "li"),
    ],
)  # fmt: skip
def test_arguments_that_are_none_are_refused_before_anybody_is_asked(arguments):
    result = _run(*arguments, "--user", "x", env={"CUSTOS_PASSWORD": "x", "COLUMNS": "200"})
    assert result.exit_code == 2
    assert "error usage" in result.stderr


class _Proxy:
    """Puts a test's control, which listens on a Unix socket, on a port, as a relay worker would."""

    def __init__(self, socket):
        self._socket = socket

    async def __aenter__(self):
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *error):
        self._server.close()
        await self._server.wait_closed()
        await self._tasks.__aexit__(*error)

    async def _serve(self, reader, writer):
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
        both = [
            self._tasks.create_task(self._copy(reader, up_writer)),
            self._tasks.create_task(self._copy(up_reader, writer)),
        ]
        await asyncio.wait(both)

    async def _copy(self, reader, writer):
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def _command(url, *arguments, expect=0):
    """Run a command in a thread: it has a loop of its own."""
    environment = {"CUSTOS_PASSWORD": PASSWORD, "COLUMNS": "200"}
    result = await asyncio.to_thread(_run, *arguments, "--url", url, env=environment)
    assert result.exit_code == expect, (arguments, result.output, result.exception)
    return result.stdout if expect == 0 else result.stderr


async def test_grants_by_command(tmp_path):
    assert threading.current_thread() is threading.main_thread()
    async with open_city(tmp_path) as city, _Proxy(tmp_path / "control-http.sock") as url:
        create = (
            "grant", "create", "--user", "traffic-admin", "--subject", "user:urban-operator",
            "--object", "camera:gate", "--action", "live:view", "--purpose", "patrol",
            "--window", "1234567@00:00-24:00", "--max-concurrent", 2, "--to", "2027-01-01T00:00:00Z",
            "--reason", "联合巡查",
        )  # fmt: skip
        told = json.loads(await _command(url, *create, "--dry-run", "--json"))
        assert told["gains"]["count"] == 1
        assert "urban-operator" in await _command(url, *create, "--dry-run")
        assert await city.records(kind="grant") == []
        grant = (await _command(url, *create)).strip()
        (listed,) = (await _command(url, "grant", "list", "--user", "traffic-admin", "--json")).splitlines()
        entry = json.loads(listed)
        assert (entry["id"], entry["reason"], entry["purposes"]) == (grant, "联合巡查", ["patrol"])
        assert entry["obligations"]["max_concurrent"] == 2
        assert entry["schedule"]["zone"] == "Asia/Shanghai"
        assert grant in await _command(
            url, "grant", "list", "--user", "traffic-admin", "--active", "--subject", "user:urban-operator"
        )
        why = ("explain", "--as", "traffic-admin", "--user", "urban-operator", "--camera", "gate")
        assert "may watch live camera" in await _command(url, *why, "--purpose", "patrol")
        assert "不可以" in await _command(url, *why, "--lang", "zh")
        assert json.loads(await _command(url, *why, "--json"))["decision"]["reason"] == "purpose_not_allowed"
        assert "error access_denied" in await _command(
            url, "grant", "revoke", grant, "--user", "urban-admin", expect=2
        )
        revoke = ("grant", "revoke", grant, "--user", "traffic-admin", "--reason", "项目结束")
        assert "Losses: 1" in await _command(url, *revoke, "--dry-run")
        assert await _command(url, *revoke) == ""
        (revoked,) = await city.records(kind="revoke")
        assert "项目结束" in revoked.content
        assert await _command(url, "grant", "list", "--user", "traffic-admin", "--json") == ""


async def test_the_policy_in_force_by_command(tmp_path):
    path = ROOT / "config" / "policies.yaml"
    async with open_city(tmp_path) as city, _Proxy(tmp_path / "control-http.sock") as url:
        told = await _command(url, "policy", "status", "--user", "auditor")
        assert "no grant is frozen" in told
        assert ": accepted" in told
        await city.grant()
        await freeze_grants(city)
        assert "1 grants are frozen since 2026-01-05" in await _command(
            url, "policy", "status", "--user", "auditor"
        )
        status = json.loads(await _command(url, "policy", "status", "--user", "auditor", "--json"))
        assert (status["unconfirmed"], status["void"]) == (1, {})
        confirm = ("policy", "confirm", "traffic", "--user")
        assert "error access_denied" in await _command(url, *confirm, "urban-admin", expect=2)
        assert await _command(url, *confirm, "traffic-admin") == "1 grants confirmed\n"
        accept = ("policy", "accept", path, "--user")
        assert "error access_denied" in await _command(url, *accept, "root", expect=2)
        assert await _command(url, *accept, "security") == ""
        missing = ("policy", "accept", tmp_path / "nothing", "--user", "security")
        assert "error file_unreadable" in await _command(url, *missing, expect=2)
