"""Whether a camera's connection may be tested, and the record of it; a relay worker looks."""

from gateway.audit.records import AuditKind
from gateway.enforcement import Circumstances, Enforcement, Grant
from gateway.principals import Principal
from gateway.store.unit import Unit
from policies.access import Action, Object, ObjectKind


class CameraTests:
    def __init__(self, enforcement: Enforcement) -> None:
        self._enforcement = enforcement

    async def begin(self, principal: Principal, camera_id: str, circumstances: Circumstances) -> None:
        """When this returns, the record is durable. Raises Problem `access_denied`."""
        content = f"test the connection of camera {camera_id}"

        async def act(work: Unit, grant: Grant) -> None:
            work.record(grant.event(AuditKind.CAMERA_TESTED, content))

        target = Object(ObjectKind.CAMERA, camera_id)
        await self._enforcement.perform(principal, Action.CAMERA_MANAGE, target, circumstances, content, act)
