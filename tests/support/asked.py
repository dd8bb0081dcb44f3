"""What is asked of each route in the matrix of duties: what the address names, the query, the body.

An address or a body names something of the department `traffic`, made anew where asking may use it up.
"""

import itertools

from support.controls import PASSWORD, add_user

WHY = {"code": "patrol", "reference": "roster 1"}
"""To look."""
_AUDIT = {"code": "audit"}
_AUDITS = "?purpose=audit"
_LOOKS = "?purpose=patrol&reference=roster"
_GRANT = {
    "subject": {"kind": "user", "id": "urban-visitor"},
    "object": {"kind": "camera", "id": "bridge"},
    "actions": ["live:view"],
}
SESSION = {"camera": "gate", "purpose": WHY}
_ANALYSIS = {**SESSION, "analyser": "motion", "parameters": {}}
_QUESTION = {
    "subject": {"type": "user", "id": "urban-operator"},
    "action": {"name": "live:view"},
    "resource": {"type": "camera", "id": "gate"},
}
_fresh = map(str, itertools.count())


def _made(username, path, body, key="id"):
    async def make(city):
        return (await city.call(username, "POST", path, body() if callable(body) else body))[key]

    return make


def _named(**more):
    return lambda: {"name": f"n{next(_fresh)}", **more}


def _user():
    name = f"u{next(_fresh)}"
    return {"username": name, "display_name": "n", "department_id": "traffic", "password": PASSWORD}


def _purpose():
    return {"code": f"p{next(_fresh)}", "text": {"zh": "事", "en": "p"}}


async def _job(city):
    name = f"j{next(_fresh)}"
    await add_user(city, name, "traffic", kind="job", login=False)
    return name


async def _new_dispute(city):
    return {"grant": await _grant(city), "reason": "nobody works there any more"}


async def _dispute(city):
    # neither who gave the grant nor who doubts it may close the dispute
    grant = await _made("traffic-deputy", "/grants", _GRANT)(city)
    body = {"grant": grant, "reason": "nobody works there any more"}
    return (await city.call("auditor", "POST", "/disputes", body))["id"]


async def _a_log_in(city):
    records = await city.call("auditor", "GET", "/audit/records?purpose=audit&kind=login&page_size=1")
    return str(records["items"][0]["seq"])


async def _undertaking(city):
    return {"version": (await city.call("urban-visitor", "GET", "/undertaking"))["version"]}


async def _policy_file(city):
    return {"sha256": (await city.call("security", "GET", "/policy"))["file"]["sha256"]}


async def _person(city):
    return (await city.call("root", "POST", "/users", _user()))["user"]["id"]


_camera = _made("traffic-admin", "/cameras", _named(department_id="traffic", url="rtsp://127.0.0.1/x"))
_department = _made("root", "/departments", _named(parent_id="traffic"))
_group = _made("traffic-admin", "/groups", _named(department_id="traffic"))
_grant = _made("traffic-admin", "/grants", _GRANT)
_role = _made("root", "/roles", _named(), "name")
_session = _made("urban-operator", "/sessions", SESSION)
_analysis = _made("job", "/analyses", _ANALYSIS)

BODIES = {
    "POST /api/v1/login": {"username": "spare", "password": PASSWORD},
    "POST /api/v1/me/second-factor": {},
    "POST /api/v1/me/second-factor/confirm": {"code": "000000"},
    "DELETE /api/v1/me/second-factor": {"code": "000000"},
    "POST /api/v1/duty": {"username": "spare", "password": "wrong", "ends_at": "2026-01-05T12:00:00Z"},
    "POST /api/v1/departments": _named(parent_id="traffic"),
    "PATCH /api/v1/departments/{id}": {"name": "n"},
    "POST /api/v1/groups": _named(department_id="traffic"),
    "PATCH /api/v1/groups/{id}": {"name": "n"},
    "POST /api/v1/cameras": _named(department_id="traffic", url="rtsp://127.0.0.1/x"),
    "POST /api/v1/cameras/import": {},  # no file at all: what a file may say is the import's own tests
    "PATCH /api/v1/cameras/{id}": {"description": "d"},
    "POST /api/v1/thumbnails": {"cameras": ["gate"], "purpose": WHY},
    "POST /api/v1/thumbnails/{id}/sessions": {"camera": "gate"},
    "POST /api/v1/users": _user,
    "PATCH /api/v1/users/{id}": {"locale": "en"},
    "POST /api/v1/roles": _named(),
    "POST /api/v1/grants": _GRANT,
    "POST /api/v1/disputes": _new_dispute,
    "POST /api/v1/disputes/{id}/close": {"outcome": "dismissed", "reason": "they do"},
    "POST /api/v1/policy/confirm": {"department_id": "traffic"},
    "POST /api/v1/policy/file/accept": _policy_file,
    "POST /access/v1/evaluation": _QUESTION,
    "POST /access/v1/evaluations": _QUESTION,
    "POST /access/v1/search/subject": _QUESTION,
    "POST /access/v1/search/resource": _QUESTION,
    "POST /access/v1/search/action": _QUESTION,
    "POST /api/v1/purposes": _purpose,
    "PATCH /api/v1/purposes/{code}": {"enabled": True},
    "POST /api/v1/undertaking/accept": _undertaking,
    "POST /api/v1/undertakings": {"text": {"zh": "谁使用，谁负责", "en": "Whoever uses it is responsible"}},
    "POST /api/v1/sessions": SESSION,
    "POST /api/v1/analyses": _ANALYSIS,
    "POST /api/v1/audit/records/{seq}/erasure": {"fields": ["remote"], "reason": "asked", "purpose": _AUDIT},
}
"""A value, or what makes one."""

QUERIES = {
    "GET /api/v1/explain": "?camera=gate",
    "GET /api/v1/audit/records": _AUDITS,
    "GET /api/v1/audit/proofs/{seq}": _AUDITS,
    "GET /api/v1/audit/export": _AUDITS,
    "GET /api/v1/audit/consistency": "?old_size=1&tree_size=2",
    "GET /api/v1/cameras/{id}/snapshot": _LOOKS,
    "GET /api/v1/frames/{camera}": _LOOKS,
}

TARGETS = {
    "PATCH /api/v1/departments/{id}": _department,
    "DELETE /api/v1/departments/{id}": _department,
    "PATCH /api/v1/groups/{id}": _group,
    "DELETE /api/v1/groups/{id}": _group,
    "GET /api/v1/cameras/{id}": "gate",
    "PATCH /api/v1/cameras/{id}": _camera,
    "DELETE /api/v1/cameras/{id}": _camera,
    "GET /api/v1/cameras/{id}/viewers": "gate",
    "GET /api/v1/cameras/{id}/snapshot": "gate",
    "POST /api/v1/cameras/{id}/test": "gate",
    "GET /api/v1/frames/{camera}": "gate",
    "POST /api/v1/thumbnails/{id}/sessions": "0" * 32,
    "GET /api/v1/users/{id}": "traffic-operator",
    "PATCH /api/v1/users/{id}": "traffic-operator",
    "DELETE /api/v1/users/{id}/second-factor": _person,
    "POST /api/v1/users/{id}/key": _job,
    "GET /api/v1/users/{id}/cameras": "traffic-operator",
    "DELETE /api/v1/roles/{name}": _role,
    "DELETE /api/v1/grants/{id}": _grant,
    "POST /api/v1/disputes/{id}/close": _dispute,
    "PATCH /api/v1/purposes/{code}": "patrol",
    "POST /api/v1/sessions/{id}/ticket": _session,
    "POST /api/v1/sessions/{id}/confirm": _session,
    "GET /api/v1/sessions/{id}": _session,
    "DELETE /api/v1/sessions/{id}": _session,
    "DELETE /api/v1/analyses/{id}": _analysis,
    "GET /api/v1/audit/proofs/{seq}": "0",
    "POST /api/v1/audit/records/{seq}/erasure": _a_log_in,
}
"""An id, or what makes the thing that it names."""
