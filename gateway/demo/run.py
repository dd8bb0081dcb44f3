"""`custos demo`: render what the cameras see, start the node, fill it once, say where it is.

The folder keeps everything, so that a second start is quick. Passwords are shown once and kept nowhere; those
of the simulated cameras are in `cameras.json`, readable by this user only, as a real camera keeps its own.
"""

import asyncio
import dataclasses
import os
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.accounts import bootstrap
from gateway.authentication import LoginSettings
from gateway.demo.cameras import CamerasSettings, SimulatedCameraSettings
from gateway.demo.city import ADMINISTRATOR, CAMERAS, DEPARTMENTS, ROOT_NAME, USERS
from gateway.demo.seed import SeedError, seed
from gateway.node import reserved_ports, run_folder, supervisor
from gateway.node_errors import NodeError
from gateway.passwords import Passwords, PasswordSettings, generate_password
from gateway.settings import EgressFileSettings, HttpSettings, LogSettings, RtspServerSettings, Settings
from gateway.store.store import Store, StoreSettings
from gateway.supervised_child import ChildSpec, RestartPolicy
from gateway.supervisor import NodeSupervisor
from streams.media import Codec
from streams.simulator.clips import clip_path, render_clips
from streams.simulator.scenes import SCENES

DRAIN_SECONDS = 4.5
"""Ctrl-C ends the demonstration within 5 s."""

_LOGIN = LoginSettings(second_factor="nobody")

Progress = Callable[[float], None]


class DemoError(NodeError):
    """The demonstration cannot start; the message says what to do."""

    code = "demo_failed"


@dataclass(frozen=True, kw_only=True)
class Account:
    username: str
    password: str | None
    role: str
    department: str


@dataclass(frozen=True, kw_only=True)
class CameraLine:
    id: str
    name: str
    department: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What `custos demo --json` prints when it is ready. Passwords are null from the second start on.

    `second_factor`: who must have one. Here nobody must, so that it can be tried without a telephone.
    """

    url: str
    accounts: list[Account]
    cameras: list[CameraLine]
    audit_public_key: str
    second_factor: str


class _State(msgspec.Struct, kw_only=True):
    """`cameras.json`: what must be the same at every start."""

    camera_port: int
    camera_username: str
    camera_password: str
    is_seeded: bool = False


async def run_demo(
    folder: Path,
    port: int,
    policies: Path,
    log: LogSettings,
    progress: Progress,
    on_ready: Callable[[Ready], None],
) -> None:
    """Run until Ctrl-C or SIGTERM. Raises DemoError or a NodeError."""
    await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    state = await asyncio.to_thread(_read_state, folder)
    await asyncio.to_thread(_render, folder / "clips", progress)
    settings = _settings(folder, port, policies, log)
    with reserved_ports(settings) as ports, run_folder(folder) as run:
        admin_password = None if state.is_seeded else await _bootstrap(folder)
        node = supervisor(
            settings,
            run,
            ports,
            others=[_cameras_child(state, folder / "clips", log)],
            drain_seconds=DRAIN_SECONDS,
        )
        url = f"http://127.0.0.1:{ports.http}"
        await _run_node(node, url, folder, state, admin_password, on_ready)


async def _run_node(
    node: NodeSupervisor,
    url: str,
    folder: Path,
    state: _State,
    admin_password: str | None,
    on_ready: Callable[[Ready], None],
) -> None:
    started = asyncio.Event()

    async def greet() -> None:
        await started.wait()
        passwords: dict[str, str] = {}
        if admin_password is not None:
            passwords = await _seed(url, admin_password, state)
            state.is_seeded = True
            await asyncio.to_thread(_write_state, folder, state)
        on_ready(_ready(url, passwords, await asyncio.to_thread(_public_key, folder)))

    async with asyncio.TaskGroup() as tasks:
        greeting = tasks.create_task(greet())
        try:
            await node.run(started.set)
        finally:
            greeting.cancel()


async def _seed(url: str, admin_password: str, state: _State) -> dict[str, str]:
    urls = {c.id: f"rtsp://127.0.0.1:{state.camera_port}/{c.id}" for c in CAMERAS}
    titles = {c.id: SCENES[c.scene]().title["zh"] for c in CAMERAS}
    try:
        return await seed(url, admin_password, urls, titles, (state.camera_username, state.camera_password))
    except SeedError as error:
        raise DemoError(f"the gateway refused the demonstration's own data: {error}") from error


async def _bootstrap(folder: Path) -> str:
    password = generate_password()
    if await asyncio.to_thread((folder / "custos.db").exists):
        raise DemoError(
            f"an earlier first start in {folder} was interrupted: remove the folder and start again"
        )
    async with Store.open(StoreSettings(data_folder=folder)) as store:
        password_hash = await Passwords(PasswordSettings()).hash(password)
        await bootstrap(store, password_hash, ADMINISTRATOR, ROOT_NAME)
    return password


def _settings(folder: Path, port: int, policies: Path, log: LogSettings) -> Settings:
    return dataclasses.replace(
        Settings(),
        data=str(folder),
        policies=str(policies),
        http=HttpSettings(host="127.0.0.1", port=port),
        rtsp_server=RtspServerSettings(port=0),
        login=_LOGIN,
        egress=EgressFileSettings(allowed_networks=("127.0.0.0/8",)),
        log=log,
    )


def _cameras_child(state: _State, clips: Path, log: LogSettings) -> ChildSpec:
    settings = CamerasSettings(
        port=state.camera_port,
        username=state.camera_username,
        password=state.camera_password,
        cameras=tuple(
            SimulatedCameraSettings(
                name=c.id,
                clip=str(clip_path(clips, c.scene)),
                codec=Codec(c.codec),
                has_sub_stream=c.has_sub_stream,
                has_sound=c.has_sound,
            )
            for c in CAMERAS
        ),
        log_format=log.format,
    )
    return ChildSpec(
        name="cameras",
        argv=(sys.executable, "-m", "gateway.demo.cameras"),
        settings=msgspec.json.encode(settings),
        start_order=0,
        stop_order=2,
        restart=RestartPolicy(max_deaths=5),
    )


def _ready(url: str, passwords: dict[str, str], public_key: str) -> Ready:
    names = {"": ROOT_NAME, **{d.id: d.name for d in DEPARTMENTS}}
    return Ready(
        url=url,
        accounts=[
            Account(
                username=username,
                password=passwords.get(username),
                role=role,
                department=names[department],
            )
            for username, role, department in (
                (ADMINISTRATOR, "system-administrator", ""),
                *((user.username, user.role, user.department) for user in USERS),
            )
        ],
        cameras=[
            CameraLine(id=c.id, name=SCENES[c.scene]().title["zh"], department=names[c.department])
            for c in CAMERAS
        ],
        audit_public_key=public_key,
        second_factor=_LOGIN.second_factor,
    )


def _render(folder: Path, progress: Progress) -> None:
    """Blocks; `progress` gets the share that is done, from 0 to 1."""
    scenes = [camera.scene for camera in CAMERAS]
    total = sum(SCENES[scene]().pictures for scene in scenes)
    done = 0

    def count(pictures: int) -> None:
        nonlocal done
        done += pictures
        progress(done / total)

    render_clips(scenes, folder, count)


def _read_state(folder: Path) -> _State:
    path = folder / "cameras.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=_State)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = _State(camera_port=port, camera_username="custos", camera_password=secrets.token_urlsafe(18))
    _write_state(folder, state)
    return state


def _write_state(folder: Path, state: _State) -> None:
    draft = folder / "cameras.json.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(state))
    draft.replace(folder / "cameras.json")


def _public_key(folder: Path) -> str:
    return (folder / "ledger.pub").read_text(encoding="utf-8").strip()
