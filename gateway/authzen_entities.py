"""The information model of the OpenID AuthZEN Authorization API 1.0: what is asked, and what is answered.

Unknown fields are ignored, as its serialization asks.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from policies.access import Obligations

MAX_EVALUATIONS = 256
MAX_TOKEN = 1024
MAX_NAME = 256
DEFAULT_RESULTS = 50

Name = Annotated[str, Meta(max_length=MAX_NAME)]


class SubjectEntity(msgspec.Struct, frozen=True, kw_only=True):
    type: Name
    id: Name


class ResourceEntity(msgspec.Struct, frozen=True, kw_only=True):
    type: Name
    id: Name


class ActionEntity(msgspec.Struct, frozen=True, kw_only=True):
    name: Name


class EntityType(msgspec.Struct, frozen=True, kw_only=True):
    """What a search looks for: an id is ignored."""

    type: Name


class QuestionContext(msgspec.Struct, frozen=True, kw_only=True):
    """`min_revision`: of the policy, as a write answered it. An older decision point denies."""

    purpose: Annotated[str, Meta(max_length=64)] | None = None
    min_revision: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    at: Any = None

    def __post_init__(self) -> None:
        if self.at is not None:
            raise ValueError("context.at: the decision point's own clock decides")


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    subject: SubjectEntity
    action: ActionEntity
    resource: ResourceEntity
    context: QuestionContext | None = None


class PartialEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing is taken from the question around it, entity by entity."""

    subject: SubjectEntity | None = None
    action: ActionEntity | None = None
    resource: ResourceEntity | None = None
    context: QuestionContext | None = None


class EvaluationOptions(msgspec.Struct, frozen=True, kw_only=True):
    evaluations_semantic: Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"] = (
        "execute_all"
    )


class Evaluations(PartialEvaluation, frozen=True, kw_only=True):
    """Without `evaluations`, one evaluation."""

    evaluations: Annotated[list[PartialEvaluation], Meta(max_length=MAX_EVALUATIONS)] = []
    options: EvaluationOptions = EvaluationOptions()


class EvaluationError(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    message: str


class AnswerContext(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`reason`: a stable code. `expires_at`: ask again then. `obligations` bind who acts on a permission."""

    reason: str
    revision: int
    rule: str | None = None
    obligations: Obligations | None = None
    expires_at: datetime | None = None
    error: EvaluationError | None = None


class EvaluationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    decision: bool
    context: AnswerContext


class EvaluationsAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`evaluations` in the order of the questions, or `decision` if one was asked."""

    evaluations: list[EvaluationAnswer] | None = None
    decision: bool | None = None
    context: AnswerContext | None = None


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    token: Annotated[str, Meta(max_length=MAX_TOKEN)] = ""
    limit: Annotated[int, Meta(ge=0)] = DEFAULT_RESULTS


class PageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`next_token` is empty after the last page."""

    next_token: str
    count: int


class SubjectSearch(msgspec.Struct, frozen=True, kw_only=True):
    subject: EntityType
    action: ActionEntity
    resource: ResourceEntity
    context: QuestionContext | None = None
    page: PageRequest = PageRequest()


class ResourceSearch(msgspec.Struct, frozen=True, kw_only=True):
    subject: SubjectEntity
    action: ActionEntity
    resource: EntityType
    context: QuestionContext | None = None
    page: PageRequest = PageRequest()


class ActionSearch(msgspec.Struct, frozen=True, kw_only=True):
    subject: SubjectEntity
    resource: ResourceEntity
    context: QuestionContext | None = None
    page: PageRequest = PageRequest()


class SubjectResults(msgspec.Struct, frozen=True, kw_only=True):
    page: PageAnswer
    results: list[SubjectEntity]


class ResourceResults(msgspec.Struct, frozen=True, kw_only=True):
    page: PageAnswer
    results: list[ResourceEntity]


class ActionResults(msgspec.Struct, frozen=True, kw_only=True):
    page: PageAnswer
    results: list[ActionEntity]
