"""Which cameras somebody may know of: the same rules as a decision, asked of all cameras at once.

A camera is visible if an action on it would be allowed for some purpose: what may be seen must be listed
before a purpose can be declared.
"""

from collections.abc import Iterable
from datetime import datetime

from policies.access import Action, Object, ObjectKind
from policies.catalogue import Catalogue, object_key
from policies.rules import PolicyRule, RuleIndex
from policies.subjects import Subjects, user_key


class Visibility:
    """Reads the facts and rules of its engine; holds nothing itself."""

    def __init__(self, subjects: Subjects, catalogue: Catalogue, rules: RuleIndex) -> None:
        self._subjects = subjects
        self._catalogue = catalogue
        self._rules = rules

    def is_visible(self, user_id: str, camera_id: str, at: datetime, actions: Iterable[Action]) -> bool:
        """Whether any of the actions on one camera is allowed for some purpose."""
        closure = self._closure(user_id)
        camera = _camera_key(camera_id)
        ancestors = self._catalogue.ancestors(camera)
        if closure is None or ancestors is None:
            return False
        return any(
            self._is_allowed_for_some_purpose(
                self._rules.candidates(closure, camera, ancestors, action), user_id, at
            )
            for action in actions
        )

    def visible_cameras(self, user_id: str, at: datetime, actions: Iterable[Action]) -> set[str]:
        """Ids of exactly the cameras for which `is_visible` holds."""
        closure = self._closure(user_id)
        if closure is None:
            return set()
        visible: set[str] = set()
        for action in actions:
            visible |= self._cameras_allowed(user_id, closure, action, at)
        if not self._catalogue.is_complete():
            visible = {camera for camera in visible if self._catalogue.ancestors(_camera_key(camera))}
        return visible

    def _closure(self, user_id: str) -> frozenset[str] | None:
        user = user_key(user_id)
        return self._subjects.closure(user) if self._subjects.is_enabled(user) else None

    def _is_allowed_for_some_purpose(self, rules: Iterable[PolicyRule], user_id: str, at: datetime) -> bool:
        is_allowed_for_any = False
        allowed: set[str] = set()
        denied: set[str] = set()
        for rule in rules:
            conditions = self._rules.conditions[rule.gid]
            if conditions.unmet_by(user_id, at) is not None:
                continue
            if conditions.purposes is not None:
                (allowed if conditions.is_allow else denied).update(conditions.purposes)
            elif conditions.is_allow:
                is_allowed_for_any = True
            else:
                return False
        return is_allowed_for_any or bool(allowed - denied)

    def _cameras_allowed(
        self, user_id: str, closure: frozenset[str], action: Action, at: datetime
    ) -> set[str]:
        """Cameras on which one action is allowed for some purpose: allowed regions less denied ones.

        Only where a grant and a denial are both limited to purposes must a camera be looked at by itself.
        """
        certain: set[str] = set()
        limited: set[str] = set()
        denied: set[str] = set()
        contested: set[str] = set()
        for rule in self._rules.reaching(closure, action):
            conditions = self._rules.conditions[rule.gid]
            if conditions.unmet_by(user_id, at) is not None:
                continue
            if conditions.purposes is None:
                region = certain if conditions.is_allow else denied
            elif conditions.purposes:
                region = limited if conditions.is_allow else contested
            else:
                continue
            region.update(self._catalogue.cameras_in(rule.object))
        for camera in contested & limited - certain:
            if not self.is_visible(user_id, camera, at, (action,)):
                limited.discard(camera)
        return (certain | limited) - denied


def _camera_key(camera_id: str) -> str:
    return object_key(Object(ObjectKind.CAMERA, camera_id))
