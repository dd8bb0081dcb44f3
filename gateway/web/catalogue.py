"""Departments, groups, cameras."""

import base64
import binascii

import msgspec

from gateway.camera_rows import sharing_terms
from gateway.catalogue import Ref
from gateway.catalogue_index import CameraFilter, is_sort_key
from gateway.catalogue_trees import Department, Group
from gateway.directory import CameraConnection, CameraEntry, CameraRow, CameraSearch, CameraStatus
from gateway.forms import (
    CameraChange,
    DepartmentChange,
    GroupChange,
    Identifier,
    NewCamera,
    NewDepartment,
    NewGroup,
    PointClass,
    Tag,
)
from gateway.national_codes import Network
from gateway.problems import Problem
from gateway.web.routing import API, Access, Call, Page, Route
from policies.access import Action, Object, ObjectKind, SharingMode

MAX_PAGE_TOKEN = 2048
MAX_SEARCH_CHARACTERS = 200


class DepartmentList(msgspec.Struct, frozen=True):
    items: list[Department]


class GroupList(msgspec.Struct, frozen=True):
    items: list[Group]


class CameraQuery(Page, frozen=True, kw_only=True):
    """`q`: words, all of which stand in the name, description, place, code, id or management unit.

    `department` and `group`: with all below them.
    """

    q: str = ""
    department: Identifier | None = None
    group: Identifier | None = None
    tag: Tag | None = None
    network: Network | None = None
    point_class: PointClass | None = None
    sharing_mode: SharingMode | None = None
    enabled: bool | None = None

    def search(self) -> CameraSearch:
        return CameraSearch(
            words=self.q[:MAX_SEARCH_CHARACTERS],
            department=self.department,
            group=self.group,
            tag=self.tag,
            fits=CameraFilter(self.network, self.point_class, self.sharing_mode, self.enabled),
        )


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
    return await call.services.trees.create_department(call.who, body, call.circumstances())


async def change_department(call: Call, body: DepartmentChange) -> Department:
    return await call.services.trees.change_department(call.who, call.path("id"), body, call.circumstances())


async def delete_department(call: Call, _: None) -> None:
    await call.services.trees.delete_department(call.who, call.path("id"), call.circumstances())


async def list_groups(call: Call, _: None) -> GroupList:
    return GroupList(await call.services.directory.groups())


async def create_group(call: Call, body: NewGroup) -> Group:
    return await call.services.trees.create_group(call.who, body, call.circumstances())


async def change_group(call: Call, body: GroupChange) -> Group:
    return await call.services.trees.change_group(call.who, call.path("id"), body, call.circumstances())


async def delete_group(call: Call, _: None) -> None:
    await call.services.trees.delete_group(call.who, call.path("id"), call.circumstances())


async def list_cameras(call: Call, _: None) -> CameraPage:
    query = call.query(CameraQuery)
    listing = await call.services.directory.cameras(
        call.who, query.search(), _after(query.page_token), query.size()
    )
    return CameraPage(
        items=[_entry(call, camera) for camera in listing.page],
        next_page_token=None
        if listing.next_key is None
        else base64.urlsafe_b64encode(listing.next_key).decode(),
        total=listing.total,
    )


async def create_camera(call: Call, body: NewCamera) -> CreatedCamera:
    return CreatedCamera(await call.services.catalogue.create_camera(call.who, body, call.circumstances()))


async def get_camera(call: Call, _: None) -> CameraDetail:
    camera_id = call.path("id")
    camera = await call.services.directory.camera(call.who, camera_id)
    manages = call.services.enforcement.decide(
        call.who.id, Action.CAMERA_MANAGE, Object(ObjectKind.CAMERA, camera_id)
    ).allowed
    return CameraDetail(
        camera=_entry(call, camera),
        connection=await call.services.directory.connection(camera_id) if manages else None,
    )


async def change_camera(call: Call, body: CameraChange) -> CameraDetail:
    camera_id = call.path("id")
    await call.services.catalogue.change_camera(call.who, camera_id, body, call.circumstances())
    return await get_camera(call, None)


async def delete_camera(call: Call, _: None) -> None:
    await call.services.catalogue.delete_camera(call.who, call.path("id"), call.circumstances())


def _entry(call: Call, camera: CameraRow) -> CameraEntry:
    row = camera.row
    report = call.services.workers.report(row.id)
    return CameraEntry(
        id=row.id,
        name=row.name,
        description=row.description,
        department=Ref(row.department_id, row.department_name),
        enabled=row.enabled,
        has_sub_stream=row.sub_url is not None,
        code=row.code,
        civil_code=row.civil_code,
        point_class=row.point_class,
        network=row.network,
        place=row.place,
        longitude=row.longitude,
        latitude=row.latitude,
        direction=row.direction,
        management_unit=row.management_unit,
        retention_days=row.retention_days,
        tags=camera.tags,
        sharing=sharing_terms(row),
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


def _after(token: str | None) -> bytes:
    """The sort key in a page token; without one, what comes before all."""
    if token is None:
        return b""
    try:
        key = base64.b64decode(token[:MAX_PAGE_TOKEN].encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not is_sort_key(key):
        raise Problem("invalid_field", "page_token")
    return key


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
        method="PATCH",
        path=f"{API}/departments/{{id}}",
        handler=change_department,
        access=Action.DEPARTMENT_MANAGE,
        summary="Rename or move a department",
        body=DepartmentChange,
        answer=Department,
    ),
    Route(
        method="DELETE",
        path=f"{API}/departments/{{id}}",
        handler=delete_department,
        access=Action.DEPARTMENT_MANAGE,
        summary="Delete a department that nothing uses",
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
        method="PATCH",
        path=f"{API}/groups/{{id}}",
        handler=change_group,
        access=Action.CAMERA_MANAGE,
        summary="Rename or move a group of cameras",
        body=GroupChange,
        answer=Group,
    ),
    Route(
        method="DELETE",
        path=f"{API}/groups/{{id}}",
        handler=delete_group,
        access=Action.CAMERA_MANAGE,
        summary="Delete a group of cameras that nothing uses",
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
