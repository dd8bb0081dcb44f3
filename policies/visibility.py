"""Who may see what: the same rules as a decision, asked of all cameras, or of all users, at once.

A camera is visible if an action on it would be allowed for some purpose: what may be seen must be listed
before a purpose can be declared.
"""

from collections.abc import Iterable
from datetime import datetime

from pyroaring import BitMap

from policies.access import (
    MEDIA_ACTIONS,
    PURPOSELESS_ACTIONS,
    Action,
    Object,
    ObjectKind,
    Reason,
    SharingMode,
)
from policies.catalogue import Catalogue, object_key
from policies.decider import Candidates, Decider, Question
from policies.rules import Rule, RuleIndex
from policies.sharing import PurposeLists, is_closed
from policies.subjects import Subjects, member_key, user_key


class _Regions:
    """What live rules allow and deny, as sets of numbers, by the purposes for which they do."""

    def __init__(self, *, is_purposeless: bool) -> None:
        self._is_purposeless = is_purposeless
        self._always = {True: BitMap(), False: BitMap()}
        self._by_purpose: dict[bool, dict[str, BitMap]] = {True: {}, False: {}}

    def add(self, rule: Rule, region: BitMap) -> None:
        if rule.purposes is None or (self._is_purposeless and rule.purposes):
            self._always[rule.is_allow] |= region
            return
        by_purpose = self._by_purpose[rule.is_allow]
        for purpose in rule.purposes:
            if purpose in by_purpose:
                by_purpose[purpose] |= region
            else:
                by_purpose[purpose] = region.copy()

    def allow(self, region: BitMap) -> None:
        self._always[True] |= region

    def result(self, lists: PurposeLists | None = None) -> BitMap:
        """What is allowed for some purpose, which the owner lists, of what is in `lists`."""
        found, denied = self._always[True].copy(), self._by_purpose[False]
        for purpose, region in self._by_purpose[True].items():
            found |= region - denied[purpose] if purpose in denied else region
        if lists is not None and lists.listed:
            found = (found - lists.listed) | self._for_listed_purposes(lists)
        return found - self._always[False]

    def _for_listed_purposes(self, lists: PurposeLists) -> BitMap:
        found = BitMap()
        allowed, denied = self._by_purpose[True], self._by_purpose[False]
        for purpose, listing in lists.by_purpose.items():
            region = self._always[True] & listing
            if purpose in allowed:
                region |= allowed[purpose] & listing
            found |= region - denied[purpose] if purpose in denied else region
        return found


class Visibility:
    """Reads the facts and rules of its engine; holds nothing itself."""

    def __init__(self, subjects: Subjects, catalogue: Catalogue, rules: RuleIndex, decider: Decider) -> None:
        self._subjects = subjects
        self._catalogue = catalogue
        self._rules = rules
        self._decider = decider

    def is_visible(self, user_id: str, camera_id: str, at: datetime, actions: Iterable[Action]) -> bool:
        """Whether any of the actions on one camera is allowed for some purpose."""
        camera = Object(ObjectKind.CAMERA, camera_id)
        for action in actions:
            asked = self._decider.question(user_id, action, camera, at, None)
            if isinstance(asked, Reason):
                return False
            if self._is_allowed_for_some_purpose(*asked):
                return True
        return False

    def visible(
        self, user_id: str, at: datetime, actions: Iterable[Action], *, by_office: bool = False
    ) -> BitMap:
        """The numbers of exactly the cameras for which `is_visible` holds; `by_office`: by roles alone."""
        user = user_key(user_id)
        closure = self._subjects.closure(user)
        if closure is None or self._subjects.unmet_by(user, at) is not None:
            return BitMap()
        places: dict[str, BitMap] = {}
        found = BitMap()
        for action in actions:
            found |= self._cameras_allowed(user_id, closure, action, at, places, by_office)
        return found - self._catalogue.broken()

    def principals_of(self, resource: Object, action: Action, at: datetime) -> set[str]:
        """Ids of exactly the users to whom the action on the object is allowed for some purpose."""
        key = object_key(resource)
        ancestors = self._catalogue.ancestors(key)
        if ancestors is None:
            return set()
        places = ancestors | {key}
        members: dict[str, BitMap] = {}
        regions = _Regions(is_purposeless=action in PURPOSELESS_ACTIONS)
        for rule in self._rules.lying_on(places, action):
            if rule.unmet_at(at) or self._rules.unmet_above(rule, action, at, places):
                continue
            if rule.subject_key not in members:
                members[rule.subject_key] = self._subjects.counting_as(rule.subject_key)
            regions.add(rule, self._but_for_giver(rule, members[rule.subject_key]))
        return self._subjects.ids_of(self._users_shared_with(key, action, at, regions))

    def _users_shared_with(self, key: str, action: Action, at: datetime, regions: _Regions) -> BitMap:
        """The users whom the rules allow, and those with whom the owner shares or does not."""
        home = self._catalogue.home_of(key)
        everybody = self._subjects.everybody(at)
        if home is None or home.sharing is None or action not in MEDIA_ACTIONS:
            return regions.result() & everybody
        sharing = home.sharing
        is_over = is_closed(sharing, at)
        if action is Action.LIVE_VIEW and sharing.mode is SharingMode.UNCONDITIONAL and not is_over:
            for department_id in sharing.departments:
                regions.allow(self._subjects.counting_as(member_key(department_id)))
        found = regions.result(_lists(sharing.purposes, everybody)) & everybody
        return found & self._subjects.counting_as(member_key(home.department_id)) if is_over else found

    def _but_for_giver(self, rule: Rule, users: BitMap) -> BitMap:
        giver = self._subjects.number_of(rule.granted_by) if rule.is_allow and rule.granted_by else None
        return users if giver is None or giver not in users else users - BitMap((giver,))

    def _is_allowed_for_some_purpose(self, question: Question, candidates: Candidates) -> bool:
        here = BitMap((0,))
        regions = _Regions(is_purposeless=question.is_purposeless)
        for rules in candidates:
            for rule in rules:
                if question.action in rule.actions and not self._decider.unmet_for_any_purpose(
                    rule, question
                ):
                    regions.add(rule, here)
        return bool(regions.result(_lists(question.owner_purposes, here)))

    def _cameras_allowed(
        self,
        user_id: str,
        closure: tuple[str, ...],
        action: Action,
        at: datetime,
        places: dict[str, BitMap],
        by_office: bool,
    ) -> BitMap:
        regions = _Regions(is_purposeless=action in PURPOSELESS_ACTIONS)
        for rule in self._rules.reaching(closure, action):
            if rule.unmet_by(user_id, at) or (by_office and rule.is_allow and rule.reason is not Reason.ROLE):
                continue
            regions.add(rule, self._reach(rule, action, at, places))
        if action not in MEDIA_ACTIONS:
            return regions.result()
        departments = [key[2:] for key in closure if key.startswith("o:")]
        if action is Action.LIVE_VIEW and not by_office:
            regions.allow(self._catalogue.open_to(departments, at))
        return regions.result(self._catalogue.purpose_lists) - self._catalogue.closed_to(departments, at)

    def _reach(self, rule: Rule, action: Action, at: datetime, places: dict[str, BitMap]) -> BitMap:
        """The cameras that a rule reaches: no more than the grants above it. `places` is filled as needed."""
        region = self._at(rule.place, places)
        if rule.parent is not None:
            for above in self._rules.above(rule):
                if above is None or action not in above.actions or above.unmet_at(at):
                    return BitMap()
                region = region & self._at(above.place, places)
        return region

    def _at(self, place: str, places: dict[str, BitMap]) -> BitMap:
        if place not in places:
            places[place] = self._catalogue.ordinals_in(place)
        return places[place]


def _lists(purposes: frozenset[str] | None, region: BitMap) -> PurposeLists | None:
    """One camera's list, the same for everything in a region."""
    return None if purposes is None else PurposeLists(region, dict.fromkeys(purposes, region))
