from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policy_city import ROLES, ROLES_FILE

from policies.access import MEDIA_ACTIONS, Action
from policies.roles import MAX_ROLES, RolesError, joined_duties, parse_roles


def test_the_shipped_roles():
    assert list(ROLES) == [
        "operator",
        "department-administrator",
        "system-administrator",
        "security-administrator",
        "auditor",
        "job",
    ]
    assert not ROLES["operator"].department | ROLES["operator"].installation
    assert not ROLES["job"].department | ROLES["job"].installation
    assert Action.CAMERA_SHARE in ROLES["department-administrator"].department
    assert not ROLES["department-administrator"].installation
    assert Action.AUDIT_READ in ROLES["auditor"].department
    assert not ROLES["auditor"].installation
    carried = frozenset().union(*(role.department | role.installation for role in ROLES.values()))
    assert carried == frozenset(Action) - MEDIA_ACTIONS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected `roles`"),
        ("roles: []", "expected `roles`"),
        ("separate: []", "expected `roles`"),
        ("roles: {}\nrules: {}", "expected `roles`"),
        ("roles: {boss: {}}\nseparate: [boss]", "separate: "),
        ("roles: {boss: {}}\nseparate: [[boss]]", "separate: "),
        ("roles: {boss: {}}\nseparate: [[boss, clerk]]", "there is no role clerk"),
        ("roles: {boss: {separate_from: [clerk]}}", r"roles\.boss: .*separate_from"),
        (
            "roles: {a: {department: [user:manage]}, b: {department: [audit:read]}, "  # noqa: ISC004
            "both: {department: [audit:read], installation: [user:manage]}}\nseparate: [[a, b]]",
            r"roles\.both: joins the duties of a and b",
        ),
        ("roles: {boss: {department: [camera:raed]}}", r"roles\.boss: .*camera:raed.*department"),
        ("roles: {boss: {departement: []}}", r"roles\.boss: .*departement"),
        ("roles: {boss: null}", r"roles\.boss"),
        ("roles: {boss: {department: camera:read}}", r"roles\.boss: .*department"),
        ("roles: {Boss@police: {}}", "a role's name"),
        ("roles: {1: {}}", "a role's name"),
        ("roles: {boss: {}, boss: {department: [camera:read]}}", "duplicate key"),
        ("roles: {boss: {department: [], department: [camera:read]}}", "duplicate key"),
        ("roles: {boss: {department: [live:view]}}", r"roles\.boss: live:view can only be granted"),
        ("roles: {boss: {installation: [ptz:control]}}", "ptz:control can only be granted"),
        ("roles: {boss: !!python/object/apply:os.getcwd []}", "not YAML"),
        ("roles: {", "not YAML"),
        ("roles: {? [a] : {}}", "roles"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(RolesError, match=message):
        parse_roles(text)


def test_separate_duties_are_known_under_any_name():
    text = """
roles:
  system: {installation: [user:manage, camera:read]}
  security: {installation: [security:manage, camera:read]}
  auditor: {department: [audit:read]}
  owner: {department: [user:manage, camera:share]}
  reader: {department: [camera:read]}
  nothing: {}
  still: {}
separate: [[system, security, auditor], [nothing, still]]
"""
    roles = parse_roles(text)
    assert roles["security"].separate_from == {"system", "auditor"}
    for held in (["system"], ["owner", "reader"], ["auditor", "reader"], ["security", "reader"], ["gone"]):
        assert joined_duties(held, roles) is None
    for held, joined in (
        (["system", "auditor"], ("system", "auditor")),
        (["auditor", "owner"], ("system", "auditor")),
        (["owner", "security"], ("system", "security")),
        (["still", "nothing"], ("nothing", "still")),
    ):
        assert joined_duties(held, roles) == joined


def test_the_number_of_roles_is_limited():
    def text(count):
        return "roles:\n" + "".join(f"  role-{number}: {{}}\n" for number in range(count))

    assert len(parse_roles(text(MAX_ROLES))) == MAX_ROLES
    with pytest.raises(RolesError, match="more than"):
        parse_roles(text(MAX_ROLES + 1))


@given(st.text() | st.from_regex(r"roles:\n(  [a-z?!&*-]{1,5}: ?[\[{]?[a-z:, -]{0,20}[\]}]?\n){0,4}"))
def test_only_our_error_escapes(text):
    with suppress(RolesError):
        parse_roles(text)


def test_the_file_is_commented_for_its_reader():
    assert ROLES_FILE.read_text(encoding="utf-8").startswith("#")
