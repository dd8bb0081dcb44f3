"""Departments, groups, cameras."""

import base64
import binascii

import msgspec
import sqlalchemy as sa

from gateway.catalogue import CameraChange, Department, Group, NewCamera, NewDepartment, NewGroup, Ref
from gateway.directory import MAX_PAGE_TOKEN, CameraConnection, CameraEntry, CameraStatus
from gateway.problems import Problem
from gateway.web.routing import API, Access, Call, Page, Route
from policies.access import Action, Object, ObjectKind


class DepartmentList(msgspec.Struct, frozen=True):
    items: list[Department]


class GroupList(msgspec.Struct, frozen=True):
    items: list[Group]


class CameraQuery(Page, frozen=True, kw_only=True):
    """`q`: part of the name or description."""

    q: str = ""


class CameraPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[CameraEntry]
    next_page_token: str | None
    total: int


class CameraDetail(msgspec.Struct, frozen=True, kw_only=True):
    """`connection` only for who may manage the camera."""

    camera: CameraEntry
    connection: CameraConnection | None


class CreatedCamera(msgspec.Struct, frozen=True):
    id: str


async def list_departments(call: Call, _: None) -> DepartmentList:
    return DepartmentList(await call.services.directory.departments())


async def create_department(call: Call, body: NewDepartment) -> Department:
    return await call.services.catalogue.create_department(call.who, body, call.circumstances())


async def list_groups(call: Call, _: None) -> GroupList:
    return GroupList(await call.services.directory.groups())


async def create_group(call: Call, body: NewGroup) -> Group:
    return await call.services.catalogue.create_group(call.who, body, call.circumstances())


async def list_cameras(call: Call, _: None) -> CameraPage:
    query = call.query(CameraQuery)
    size = query.size()
    rows, total = await call.services.directory.visible_cameras(
        call.who, query.q[:200], _after(query.page_token), size
    )
    more = len(rows) > size
    return CameraPage(
        items=[_entry(call, row) for row in rows[:size]],
        next_page_token=_token(rows[size - 1]) if more else None,
        total=total,
    )


async def create_camera(call: Call, body: NewCamera) -> CreatedCamera:
    return CreatedCamera(await call.services.catalogue.create_camera(call.who, body, call.circumstances()))


async def get_camera(call: Call, _: None) -> CameraDetail:
    camera_id = call.path("id")
    row = await call.services.directory.camera(call.who, camera_id)
    manages = call.services.enforcement.decide(
        call.who.id, Action.CAMERA_MANAGE, Object(ObjectKind.CAMERA, camera_id)
    ).allowed
    return CameraDetail(
        camera=_entry(call, row),
        connection=await call.services.directory.connection(camera_id) if manages else None,
    )


async def change_camera(call: Call, body: CameraChange) -> CameraDetail:
    camera_id = call.path("id")
    await call.services.catalogue.change_camera(call.who, camera_id, body, call.circumstances())
    return await get_camera(call, None)


async def delete_camera(call: Call, _: None) -> None:
    await call.services.catalogue.delete_camera(call.who, call.path("id"), call.circumstances())


def _entry(call: Call, row: sa.Row[tuple[object, ...]]) -> CameraEntry:
    report = call.services.workers.report(row.id)
    return CameraEntry(
        id=row.id,
        name=row.name,
        description=row.description,
        department=Ref(row.department_id, row.department_name),
        enabled=row.enabled,
        has_sub_stream=row.sub_url is not None,
        status=CameraStatus()
        if report is None
        else CameraStatus(
            state=report.state,
            error=report.error,
            fault=report.fault,
            lost_packets=report.lost_packets,
            codec=report.codec,
            width=report.width,
            height=report.height,
            bit_rate_bps=report.bit_rate_bps,
            viewers=report.readers,
        ),
        actions=call.services.directory.allowed_actions(call.who, row.id),
    )


def _token(row: sa.Row[tuple[object, ...]]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([row.name, row.id])).decode()


def _after(token: str | None) -> tuple[str, str] | None:
    if token is None:
        return None
    try:
        raw = base64.b64decode(token[: 2 * MAX_PAGE_TOKEN].encode(), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=tuple[str, str])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise Problem("invalid_field", "page_token") from None


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/departments",
        handler=list_departments,
        access=Access.AUTHENTICATED,
        summary="All departments, by name",
        answer=DepartmentList,
    ),
    Route(
        method="POST",
        path=f"{API}/departments",
        handler=create_department,
        access=Action.DEPARTMENT_MANAGE,
        summary="Create a department",
        body=NewDepartment,
        answer=Department,
        status=201,
    ),
    Route(
        method="GET",
        path=f"{API}/groups",
        handler=list_groups,
        access=Access.AUTHENTICATED,
        summary="All groups of cameras, by name",
        answer=GroupList,
    ),
    Route(
        method="POST",
        path=f"{API}/groups",
        handler=create_group,
        access=Action.CAMERA_MANAGE,
        summary="Create a group of cameras",
        body=NewGroup,
        answer=Group,
        status=201,
    ),
    Route(
        method="GET",
        path=f"{API}/cameras",
        handler=list_cameras,
        access=Access.AUTHENTICATED,
        summary="The cameras that the caller may see",
        query=CameraQuery,
        answer=CameraPage,
    ),
    Route(
        method="POST",
        path=f"{API}/cameras",
        handler=create_camera,
        access=Action.CAMERA_MANAGE,
        summary="Register a camera",
        body=NewCamera,
        answer=CreatedCamera,
        status=201,
    ),
    Route(
        method="GET",
        path=f"{API}/cameras/{{id}}",
        handler=get_camera,
        access=Access.AUTHENTICATED,
        summary="One camera; how it is reached only for who manages it",
        answer=CameraDetail,
    ),
    Route(
        method="PATCH",
        path=f"{API}/cameras/{{id}}",
        handler=change_camera,
        access=Action.CAMERA_MANAGE,
        summary="Change a camera",
        body=CameraChange,
        answer=CameraDetail,
    ),
    Route(
        method="DELETE",
        path=f"{API}/cameras/{{id}}",
        handler=delete_camera,
        access=Action.CAMERA_MANAGE,
        summary="Delete a camera; its sessions end",
    ),
)
