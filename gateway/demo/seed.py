"""Fills a fresh demonstration through the public API alone, as its users would.

So the ledger shows from the start who did what.
"""

from datetime import UTC, datetime
from typing import Any

import aiohttp

from gateway.demo.city import (
    ADMINISTRATOR,
    ANALYSES,
    CAMERAS,
    DEPARTMENTS,
    GRANTS,
    USERS,
    DemoJob,
)
from streams.simulator.camera import SUB_STREAM
from streams.simulator.clock import LEFT, TOP, clock_plate, clock_text
from streams.simulator.rendering import HEIGHT, WIDTH

Passwords = dict[str, str]


class SeedError(Exception):
    """The gateway refused a step of the seeding: the message is its answer."""

    code = "demo_seed_failed"


class _Client:
    """The API of one gateway, as one logged-in user at a time."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._api = f"{url}/api/v1"
        self._tokens: dict[str, str] = {}

    async def login(self, username: str, password: str) -> dict[str, Any]:
        """Log in; people accept the undertaking, as they would in the portal."""
        answer = await self.call(None, "POST", "/login", {"username": username, "password": password})
        self._tokens[username] = answer["token"]
        user: dict[str, Any] = answer["user"]
        if user["kind"] == "person":
            version = (await self.call(username, "GET", "/undertaking"))["version"]
            await self.call(username, "POST", "/undertaking/accept", {"version": version})
        return user

    async def logout(self) -> None:
        for username in self._tokens:
            await self.call(username, "POST", "/logout")

    async def call(
        self, username: str | None, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = {} if username is None else {"Authorization": f"Bearer {self._tokens[username]}"}
        async with self._http.request(method, self._api + path, json=body, headers=headers) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status >= 400:  # noqa: PLR2004 - RFC 9110 §15.5
                raise SeedError(f"{method} {path}: {answer.get('code')}: {answer.get('detail')}")
            return answer


async def seed(
    url: str, admin_password: str, camera_urls: dict[str, str], titles: dict[str, str], login: tuple[str, str]
) -> Passwords:
    """Create everything of `gateway.demo.city`. Returns the generated passwords by user name.

    `camera_urls` and `titles` are by camera id; `login` is what the simulated cameras ask for.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        client = _Client(http, url)
        root = (await client.login(ADMINISTRATOR, admin_password))["department"]["id"]
        for department in DEPARTMENTS:
            await client.call(
                ADMINISTRATOR,
                "POST",
                "/departments",
                {"id": department.id, "name": department.name, "parent_id": department.parent or root},
            )
        passwords = {ADMINISTRATOR: admin_password, **await _create_users(client, root)}
        for user in USERS:
            await client.login(user.username, passwords[user.username])
        await _create_cameras(client, camera_urls, titles, login)
        await _create_grants(client)
        for analysis in ANALYSES:
            await client.call(
                analysis.by,
                "POST",
                "/analyses",
                {
                    "camera": analysis.camera,
                    "analyser": "motion",
                    "parameters": {"excluded": [_clock_region()]},
                    "purpose": {"code": "analysis"},
                    "period_seconds": 2,
                },
            )
        await client.logout()
        return passwords


def _clock_region() -> list[tuple[float, float]]:
    """Where the simulated cameras write the time, which moves every second: corners, normalised."""
    height, width = clock_plate(clock_text(datetime.now(UTC))).shape
    right, bottom = (LEFT + width) / WIDTH, (TOP + height) / HEIGHT
    return [(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom)]


async def _create_users(client: _Client, root: str) -> Passwords:
    passwords = {}
    for user in USERS:
        created = await client.call(
            ADMINISTRATOR,
            "POST",
            "/users",
            {
                "id": user.username,
                "username": user.username,
                "display_name": user.display_name,
                "department_id": user.department or root,
                "roles": [user.role],
                **_particulars(user.job),
            },
        )
        passwords[user.username] = created["password"]
    return passwords


def _particulars(job: DemoJob | None) -> dict[str, Any]:
    if job is None:
        return {}
    return {
        "kind": "job",
        "job": {
            "responsible_id": job.responsible,
            "processing": job.processing,
            "recipients": list(job.recipients),
            "result_days": job.result_days,
            "networks": ["127.0.0.0/8"],
        },
    }


async def _create_cameras(
    client: _Client, urls: dict[str, str], titles: dict[str, str], login: tuple[str, str]
) -> None:
    owner = {"traffic": "traffic-admin", "urban": "urban-admin", "rivers": "urban-admin"}
    for camera in CAMERAS:
        await client.call(
            owner[camera.department],
            "POST",
            "/cameras",
            {
                "id": camera.id,
                "name": titles[camera.id],
                "department_id": camera.department,
                "url": urls[camera.id],
                "sub_url": urls[camera.id] + SUB_STREAM if camera.has_sub_stream else None,
                "username": login[0],
                "password": login[1],
            },
        )


async def _create_grants(client: _Client) -> None:
    for grant in GRANTS:
        await client.call(
            grant.giver,
            "POST",
            "/grants",
            {
                "subject": {"kind": grant.subject[0], "id": grant.subject[1]},
                "object": {"kind": grant.object[0], "id": grant.object[1]},
                "actions": list(grant.actions),
                "purposes": None if grant.purposes is None else list(grant.purposes),
                "reason": grant.reason,
            },
        )
