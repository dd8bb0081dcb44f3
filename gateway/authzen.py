"""The gateway's decisions for other systems, in the words of the OpenID AuthZEN Authorization API 1.0.

Subjects are of type `user`; resources of type `camera`, `group`, `department` or `tag`; actions are the
closed list of `policies.access.Action`. The `context` of a question may have `purpose` (a code) and
`min_revision`; `at` is refused, since the decision point's own clock decides, and other attributes are
ignored, as the specification asks. An id or type that is not known is a denial like any other.

Everybody asks about himself. About others asks who shares the resource, and who reads the ledger, as for
explanations; only they are told which rule decided. An evaluation is a question and not a use: it is not
recorded, and it opens nothing. Who wants a picture asks for a session, and that is recorded.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable, Iterable

import msgspec

from gateway.authzen_entities import (
    ActionEntity,
    ActionResults,
    ActionSearch,
    AnswerContext,
    Evaluation,
    EvaluationAnswer,
    EvaluationError,
    Evaluations,
    EvaluationsAnswer,
    PageAnswer,
    PageRequest,
    PartialEvaluation,
    QuestionContext,
    ResourceEntity,
    ResourceResults,
    ResourceSearch,
    SubjectEntity,
    SubjectResults,
    SubjectSearch,
)
from gateway.directory import Directory
from gateway.enforcement import Enforcement
from gateway.problems import Problem
from policies.access import Action, Decision, Object, ObjectKind, Reason

MAX_RESULTS = 500
MAX_DECISIONS_PER_PAGE = 1000
"""A search that meets few permitted results answers a short page and a token."""

USER = "user"
UNKNOWN_TYPE = "unknown_type"
UNKNOWN_ACTION = "unknown_action"
_OBJECT_KINDS = {kind.value: kind for kind in ObjectKind if kind is not ObjectKind.INSTALLATION}
_ACTIONS = {action.value: action for action in Action}
_ENDING_DECISION = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}
_NO_CONTEXT = QuestionContext()
_LAST_PAGE = PageAnswer(next_token="", count=0)

_Search = SubjectSearch | ResourceSearch | ActionSearch


class AuthZen:
    """Answers as of now. Raises Problem `access_denied` and `bad_request` for a whole request only."""

    def __init__(self, enforcement: Enforcement, directory: Directory) -> None:
        self._enforcement = enforcement
        self._directory = directory
        self._pages = _Pages()

    def evaluate(self, caller_id: str, asked: Evaluation) -> EvaluationAnswer:
        """Raises Problem `access_denied` for a question about others that is not the caller's to ask."""
        target = _target_of(asked.resource)
        may_ask = self._may_ask_about_others(caller_id, target)
        if asked.subject != SubjectEntity(type=USER, id=caller_id) and not may_ask:
            raise Problem("access_denied", "questions about others are for who shares the resource")
        action = _action_of(asked.action)
        if target is None or asked.subject.type != USER:
            return self._refusal(UNKNOWN_TYPE)
        if action is None:
            return self._refusal(UNKNOWN_ACTION)
        decision = self._decide(asked.subject.id, action, target, asked.context)
        return EvaluationAnswer(
            decision=decision.allowed,
            context=AnswerContext(
                reason=_told(decision.reason),
                revision=decision.revision,
                rule=decision.rule if may_ask else None,
                obligations=decision.obligations if decision.allowed else None,
                expires_at=decision.expires_at,
            ),
        )

    def evaluate_all(self, caller_id: str, asked: Evaluations) -> EvaluationsAnswer:
        """Raises Problem `bad_request` if an entity is neither in a question nor around it."""
        if not asked.evaluations:
            one = self.evaluate(caller_id, _completed(asked, asked))
            return EvaluationsAnswer(decision=one.decision, context=one.context)
        questions = [_completed(question, asked) for question in asked.evaluations]
        last = _ENDING_DECISION[asked.options.evaluations_semantic]
        answers: list[EvaluationAnswer] = []
        for question in questions:
            try:
                answers.append(self.evaluate(caller_id, question))
            except Problem as problem:
                error = EvaluationError(status=problem.status, message=problem.detail)
                answers.append(self._refusal(problem.code, error))
            if answers[-1].decision is last:
                break
        return EvaluationsAnswer(evaluations=answers)

    def subjects(self, caller_id: str, asked: SubjectSearch) -> SubjectResults:
        """Who is permitted; to who may not ask about others, whether he is. In the order of ids."""
        after = self._pages.position(asked)
        target, action = _target_of(asked.resource), _action_of(asked.action)
        if target is None or action is None or asked.subject.type != USER:
            return SubjectResults(page=_LAST_PAGE, results=[])
        users: Iterable[str] = (caller_id,)
        if self._may_ask_about_others(caller_id, target):
            users = self._enforcement.principals_of(action, target)
        found, page = self._pages.fill(
            asked,
            after,
            _in_order(users, after),
            lambda user_id: self._decide(user_id, action, target, asked.context).allowed,
        )
        return SubjectResults(page=page, results=[SubjectEntity(type=USER, id=one) for one in found])

    async def resources(self, caller_id: str, asked: ResourceSearch) -> ResourceResults:
        """What the subject is permitted; about others, among what the caller shares.

        Tags are not listed: raises Problem `bad_request`.
        """
        after = self._pages.position(asked)
        kind, action = _OBJECT_KINDS.get(asked.resource.type), _action_of(asked.action)
        if kind is ObjectKind.TAG:
            raise Problem("bad_request", "resource.type: tags cannot be searched for")
        if kind is None or action is None or asked.subject.type != USER:
            return ResourceResults(page=_LAST_PAGE, results=[])
        user_id = asked.subject.id
        about_others = user_id != caller_id and not self._may_ask_about_others(caller_id, None)

        def is_permitted(identifier: str) -> bool:
            target = Object(kind, identifier)
            if about_others and not self._may_ask_about_others(caller_id, target):
                return False
            return self._decide(user_id, action, target, asked.context).allowed

        if kind is ObjectKind.CAMERA:
            candidates = self._cameras(user_id, action, caller_id if about_others else None, after)
        elif kind is ObjectKind.DEPARTMENT:
            candidates = _in_order((one.id for one in await self._directory.departments()), after)
        else:
            candidates = _in_order((one.id for one in await self._directory.groups()), after)
        found, page = self._pages.fill(asked, after, candidates, is_permitted)
        return ResourceResults(
            page=page, results=[ResourceEntity(type=kind.value, id=identifier) for identifier in found]
        )

    def actions(self, caller_id: str, asked: ActionSearch) -> ActionResults:
        """Raises Problem `access_denied` as `evaluate` does."""
        after = self._pages.position(asked)

        def is_permitted(name: str) -> bool:
            question = Evaluation(
                subject=asked.subject,
                action=ActionEntity(name=name),
                resource=asked.resource,
                context=asked.context,
            )
            return self.evaluate(caller_id, question).decision

        found, page = self._pages.fill(asked, after, _in_order(Action, after), is_permitted)
        return ActionResults(page=page, results=[ActionEntity(name=name) for name in found])

    def _cameras(
        self, user_id: str, action: Action, sharer_id: str | None, after: str | None
    ) -> Iterable[str]:
        """All for which the action may be allowed, in the engine's order of cameras, after one of them."""
        ordinals = self._enforcement.cameras_allowed(user_id, (action,))
        if sharer_id is not None:
            ordinals &= self._enforcement.cameras_allowed(sharer_id, (Action.CAMERA_SHARE,))
        last = -1 if after is None else self._enforcement.ordinal(after)
        if last is None:
            raise Problem("bad_request", "page.token")
        return map(self._enforcement.camera_of, ordinals[ordinals.rank(last) if last >= 0 else 0 :])

    def _may_ask_about_others(self, caller_id: str, target: Object | None) -> bool:
        decide = self._enforcement.decide
        if target is not None and decide(caller_id, Action.CAMERA_SHARE, target).allowed:
            return True
        return self._enforcement.audits(caller_id, target)

    def _decide(
        self, user_id: str, action: Action, target: Object, context: QuestionContext | None
    ) -> Decision:
        given = context or _NO_CONTEXT
        return self._enforcement.decide(user_id, action, target, given.purpose, given.min_revision)

    def _refusal(self, reason: str, error: EvaluationError | None = None) -> EvaluationAnswer:
        context = AnswerContext(reason=reason, revision=self._enforcement.revision, error=error)
        return EvaluationAnswer(decision=False, context=context)


class _Pages:
    """Pages of results. A token says after which one the next begins, and of which search: see `position`."""

    def __init__(self) -> None:
        self._run = secrets.token_urlsafe(6)

    def position(self, asked: _Search) -> str | None:
        """Raises Problem `bad_request` for a token of another search, or of an earlier run of the gateway.

        The order of cameras is one run's.
        """
        if not asked.page.token:
            return None
        try:
            raw = base64.b64decode(asked.page.token.encode(), altchars=b"-_", validate=True)
            run, search, last = msgspec.json.decode(raw, type=tuple[str, str, str | None])
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise Problem("bad_request", "page.token") from None
        if run != self._run or search != _digest(asked):
            raise Problem("bad_request", "page.token: of another search; begin again without it")
        return last

    def fill(
        self,
        asked: _Search,
        after: str | None,
        candidates: Iterable[str],
        is_permitted: Callable[[str], bool],
    ) -> tuple[list[str], PageAnswer]:
        limit = min(asked.page.limit, MAX_RESULTS)
        found: list[str] = []
        last, token = after, ""
        for tried, candidate in enumerate(candidates):
            if len(found) == limit or tried == MAX_DECISIONS_PER_PAGE:
                raw = msgspec.json.encode((self._run, _digest(asked), last))
                token = base64.urlsafe_b64encode(raw).decode()
                break
            if is_permitted(candidate):
                found.append(candidate)
            last = candidate
        return found, PageAnswer(next_token=token, count=len(found))


def _digest(asked: _Search) -> str:
    """Of all but the page."""
    question = msgspec.json.encode(msgspec.structs.replace(asked, page=PageRequest()))
    return hashlib.blake2b(question, digest_size=8, person=type(asked).__name__.encode()).hexdigest()


def _in_order(identifiers: Iterable[str], after: str | None) -> list[str]:
    return sorted(one for one in identifiers if after is None or one > after)


def _completed(question: PartialEvaluation, defaults: PartialEvaluation) -> Evaluation:
    subject = question.subject or defaults.subject
    action = question.action or defaults.action
    resource = question.resource or defaults.resource
    if subject is None or action is None or resource is None:
        raise Problem("bad_request", "a question needs subject, action and resource")
    return Evaluation(
        subject=subject, action=action, resource=resource, context=question.context or defaults.context
    )


def _target_of(resource: ResourceEntity) -> Object | None:
    kind = _OBJECT_KINDS.get(resource.type)
    return None if kind is None else Object(kind, resource.id)


def _action_of(action: ActionEntity) -> Action | None:
    return _ACTIONS.get(action.name)


def _told(reason: Reason) -> str:
    """That a camera or a person does not exist is not said."""
    unknown = reason in (Reason.UNKNOWN_RESOURCE, Reason.UNKNOWN_PRINCIPAL)
    return Reason.NO_MATCHING_GRANT.value if unknown else reason.value
