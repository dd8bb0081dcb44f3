"""Why a decision came out as it did, in sentences for an administrator, Chinese and English. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from policies.access import (
    Action,
    Decision,
    Effect,
    Explanation,
    ObjectKind,
    Reason,
    RuleMatch,
    Schedule,
    SubjectKind,
)

MAX_TOLD = 50
"""Rules of each kind that get a sentence; further ones are counted."""


class Told(msgspec.Struct, frozen=True):
    """Sentences, one in a line."""

    zh: str
    en: str


class GrantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a sentence about a grant may need; `purposes` with their texts."""

    giver: str
    subject_kind: SubjectKind
    subject: str
    object_kind: ObjectKind
    object: str
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    schedule: Schedule | None = None
    purposes: tuple[Told, ...] | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, by name; a purpose that was not declared is None.

    `owner_purposes`: the texts of those for which the owner lets anybody look, where that is in the way.
    """

    user: str
    camera: str
    action: Action
    purpose: Told | None = None
    owner_purposes: tuple[Told, ...] | None = None


class _Words(msgspec.Struct, frozen=True, kw_only=True):
    """One language. The texts are `str.format` templates of ours; only what fills them comes from outside."""

    language: str
    actions: Mapping[Action, str]
    subjects: Mapping[SubjectKind, str]
    objects: Mapping[ObjectKind, str]
    reasons: Mapping[Reason, str]
    misses: Mapping[Reason, str]
    days: tuple[str, ...]
    allowed: str
    denied: str
    purpose: str
    no_purpose: str
    until: str
    grant: str
    unknown_grant: str
    role: str
    shared: str
    also_allows: str
    would_allow: str
    also_denies: str
    missed: str
    more: str
    comma: str
    no_purposes: str
    not_listed: str
    missed_the_list: str


_EN = _Words(
    language="en",
    actions={
        Action.LIVE_VIEW: "watch live",
        Action.LIVE_SNAPSHOT: "take snapshots of",
        Action.FRAMES_CONSUME: "analyse the pictures of",
        Action.PTZ_CONTROL: "steer",
        Action.CAMERA_READ: "know of",
        Action.CAMERA_MANAGE: "manage",
        Action.CAMERA_SHARE: "share",
    },
    subjects={SubjectKind.USER: "user", SubjectKind.ROLE: "role", SubjectKind.DEPARTMENT: "department"},
    objects={
        ObjectKind.CAMERA: "camera",
        ObjectKind.GROUP: "group",
        ObjectKind.TAG: "tag",
        ObjectKind.DEPARTMENT: "the cameras of department",
        ObjectKind.INSTALLATION: "everything",
    },
    reasons={
        Reason.GRANTED: "{rule} allows it.",
        Reason.ROLE: "{rule} allows it.",
        Reason.SHARED: "{rule} allows it.",
        Reason.DENIED_BY_RULE: "{rule} denies it; a denial outweighs every permission.",
        Reason.NO_MATCHING_GRANT: "No grant, no role and no sharing covers it.",
        Reason.GRANT_EXPIRED: "A grant would cover it but has expired.",
        Reason.GRANT_NOT_YET_VALID: "A grant would cover it but has not begun.",
        Reason.OUTSIDE_WINDOW: "A grant would cover it, at other hours.",
        Reason.PURPOSE_NOT_ALLOWED: "A grant would cover it, for another purpose.",
        Reason.OWN_GRANT: "The only grant that would cover it was given by this person.",
        Reason.NOT_SHARED: "The owner does not share this camera with other departments.",
        Reason.PARENT_REVOKED: "The right by which the covering grant was given is gone.",
        Reason.DISPUTED: "A grant would cover it, but is disputed.",
        Reason.FROZEN: "A grant would cover it, but all grants are frozen until their owners confirm them.",
        Reason.NOT_IN_LEDGER: "A grant would cover it, but is not what the ledger says was given.",
        Reason.UNDERTAKING_REQUIRED: "This person has not accepted the newest undertaking.",
        Reason.SECOND_FACTOR_REQUIRED: "This person has not set up a second factor.",
        Reason.NOBODY_ON_DUTY: "Nobody is signed on at this wall.",
        Reason.UNKNOWN_PRINCIPAL: "There is no such account, or its department is gone.",
        Reason.PRINCIPAL_DISABLED: "The account is switched off.",
        Reason.PRINCIPAL_EXPIRED: "The program's key has expired.",
        Reason.UNKNOWN_RESOURCE: "No grant, no role and no sharing covers it.",
        Reason.MALFORMED_RULE: "A grant about it cannot be understood; such a one never allows.",
        Reason.STALE_REVISION: "The policy that was asked for has not arrived here.",
        Reason.INTERNAL_ERROR: "The decision failed, and what fails is denied; see the log.",
    },
    misses={
        Reason.GRANT_EXPIRED: "it expired on {valid_to}",
        Reason.GRANT_NOT_YET_VALID: "it is not valid before {valid_from}",
        Reason.OUTSIDE_WINDOW: "this is outside its hours ({hours})",
        Reason.PURPOSE_NOT_ALLOWED: "it is for other purposes (allowed: {purposes})",
        Reason.OWN_GRANT: "this person gave it, and no one's own grant serves him",
        Reason.NOT_SHARED: "the owner does not share this camera with other departments",
        Reason.PARENT_REVOKED: "the right by which it was given is gone or has ended",
        Reason.DISPUTED: "it is disputed",
        Reason.FROZEN: "it is frozen until the owner confirms it",
        Reason.NOT_IN_LEDGER: "it is not what the ledger says was given",
        Reason.MALFORMED_RULE: "it cannot be understood",
    },
    days=("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    allowed="{user} may {action} camera {camera} {purpose}{until}.",
    denied="{user} may not {action} camera {camera} {purpose}.",
    purpose='for the purpose "{text}"',
    no_purpose="without a declared purpose",
    until=", until {at}",
    grant="Grant {id} (given by {giver}, to {subject}, on {object})",
    unknown_grant="Rule {id}",
    role="The role {name}",
    shared="The owner's unconditional sharing",
    also_allows="{rule} allows it as well.",
    would_allow="{rule} alone would allow it.",
    also_denies="{rule} denies it too.",
    missed="{rule} does not apply: {why}.",
    more="{count} more rules are not told.",
    comma=", ",
    no_purposes="none",
    not_listed="The owner lets nobody look at this camera for this purpose (allowed: {purposes}).",
    missed_the_list="the owner lets nobody look for this purpose (allowed: {purposes})",
)

_ZH = _Words(
    language="zh",
    actions={
        Action.LIVE_VIEW: "观看实时画面",
        Action.LIVE_SNAPSHOT: "抓图",
        Action.FRAMES_CONSUME: "分析画面",
        Action.PTZ_CONTROL: "控制云台",
        Action.CAMERA_READ: "查看目录信息",
        Action.CAMERA_MANAGE: "管理",
        Action.CAMERA_SHARE: "共享",
    },
    subjects={SubjectKind.USER: "用户", SubjectKind.ROLE: "角色", SubjectKind.DEPARTMENT: "单位"},
    objects={
        ObjectKind.CAMERA: "摄像机",
        ObjectKind.GROUP: "分组",
        ObjectKind.TAG: "标签",
        ObjectKind.DEPARTMENT: "所属单位",
        ObjectKind.INSTALLATION: "全部",
    },
    reasons={
        Reason.GRANTED: "依据：{rule}。",
        Reason.ROLE: "依据：{rule}。",
        Reason.SHARED: "依据：{rule}。",
        Reason.DENIED_BY_RULE: "{rule}予以禁止；禁止优先于任何许可。",
        Reason.NO_MATCHING_GRANT: "没有任何授权、角色或共享涵盖此操作。",
        Reason.GRANT_EXPIRED: "有授权涵盖此操作，但已过期。",
        Reason.GRANT_NOT_YET_VALID: "有授权涵盖此操作，但尚未生效。",
        Reason.OUTSIDE_WINDOW: "有授权涵盖此操作，但不在允许的时段内。",
        Reason.PURPOSE_NOT_ALLOWED: "有授权涵盖此操作，但事由不符。",
        Reason.OWN_GRANT: "涵盖此操作的授权由本人授出，对本人无效。",
        Reason.NOT_SHARED: "该摄像机的所属单位不予共享。",
        Reason.PARENT_REVOKED: "涵盖此操作的授权所依据的上级授权已失效。",
        Reason.DISPUTED: "有授权涵盖此操作，但该授权存在争议。",
        Reason.FROZEN: "有授权涵盖此操作，但全部授权已冻结，须经所属单位重新确认。",
        Reason.NOT_IN_LEDGER: "有授权涵盖此操作，但与台账所载不符。",
        Reason.UNDERTAKING_REQUIRED: "该人员尚未接受最新版本的承诺书。",
        Reason.SECOND_FACTOR_REQUIRED: "该人员尚未设置第二因素。",
        Reason.NOBODY_ON_DUTY: "该大屏无人签到值守。",
        Reason.UNKNOWN_PRINCIPAL: "账号不存在，或其所属单位已不存在。",
        Reason.PRINCIPAL_DISABLED: "账号已停用。",
        Reason.PRINCIPAL_EXPIRED: "该程序的密钥已过期。",
        Reason.UNKNOWN_RESOURCE: "没有任何授权、角色或共享涵盖此操作。",
        Reason.MALFORMED_RULE: "相关授权的内容无法识别，此类授权一律不予许可。",
        Reason.STALE_REVISION: "所要求的策略版本尚未到达。",
        Reason.INTERNAL_ERROR: "判定出错，一律拒绝；详见日志。",
    },
    misses={
        Reason.GRANT_EXPIRED: "已于{valid_to}过期",
        Reason.GRANT_NOT_YET_VALID: "{valid_from}起才生效",
        Reason.OUTSIDE_WINDOW: "不在允许的时段内（{hours}）",
        Reason.PURPOSE_NOT_ALLOWED: "事由不符（允许：{purposes}）",
        Reason.OWN_GRANT: "由本人授出，对本人无效",
        Reason.NOT_SHARED: "该摄像机的所属单位不予共享",
        Reason.PARENT_REVOKED: "所依据的上级授权已失效",
        Reason.DISPUTED: "存在争议",
        Reason.FROZEN: "已冻结，须经所属单位重新确认",
        Reason.NOT_IN_LEDGER: "与台账所载不符",
        Reason.MALFORMED_RULE: "内容无法识别",
    },
    days=("周一", "周二", "周三", "周四", "周五", "周六", "周日"),
    allowed="{user}可以对摄像机“{camera}”{action}（{purpose}）{until}。",
    denied="{user}不可以对摄像机“{camera}”{action}（{purpose}）。",
    purpose="事由：{text}",
    no_purpose="未声明事由",
    until="，有效至{at}",
    grant="授权{id}（授权人：{giver}；对象：{subject}；范围：{object}）",
    unknown_grant="规则{id}",
    role="角色“{name}”",
    shared="所属单位的无条件共享",
    also_allows="{rule}同样许可。",
    would_allow="若无禁止，{rule}本可许可。",
    also_denies="{rule}同样禁止。",
    missed="{rule}不适用：{why}。",
    more="另有{count}条规则未列出。",
    comma="、",
    no_purposes="无",
    not_listed="所属单位不允许以此事由观看该摄像机（允许：{purposes}）。",
    missed_the_list="所属单位不允许此事由（允许：{purposes}）",
)


def tell(question: Question, explanation: Explanation, grants: Mapping[str, GrantFacts]) -> Told:
    """`grants`: of the rules that the explanation names, by id; one that is missing is told by its id."""
    sentences = [_sentences(words, question, explanation, grants) for words in (_ZH, _EN)]
    zh, en = ("\n".join(told) for told in sentences)
    return Told(zh, en)


def grants_told(explanation: Explanation) -> list[str]:
    """The ids of the rules that `tell` wants to know more of."""
    told = [*explanation.matching[:MAX_TOLD], *explanation.near_misses[:MAX_TOLD]]
    return sorted({match.rule for match in told} | {explanation.decision.rule or ""} - {""})


def _sentences(
    words: _Words, question: Question, explanation: Explanation, grants: Mapping[str, GrantFacts]
) -> list[str]:
    decision = explanation.decision
    others = [match for match in explanation.matching if match.rule != decision.rule]
    told = [_verdict(words, question, decision)]
    rule = None if decision.rule is None else _rule(words, decision.rule, grants)
    if decision.reason is Reason.PURPOSE_NOT_ALLOWED and question.owner_purposes is not None:
        told.append(words.not_listed.format(purposes=_listed(words, question.owner_purposes)))
    else:
        told.append(words.reasons[decision.reason].format(rule=rule))
    for match in others[:MAX_TOLD]:
        if match.effect is Effect.DENY:
            also = words.also_denies
        else:
            also = words.also_allows if decision.allowed else words.would_allow
        told.append(also.format(rule=_rule(words, match.rule, grants)))
    for match in explanation.near_misses[:MAX_TOLD]:
        why = _why(words, question, match, grants.get(match.rule))
        told.append(words.missed.format(rule=_rule(words, match.rule, grants), why=why))
    untold = max(len(others) - MAX_TOLD, 0) + max(len(explanation.near_misses) - MAX_TOLD, 0)
    if untold:
        told.append(words.more.format(count=untold))
    return told


def _verdict(words: _Words, question: Question, decision: Decision) -> str:
    purpose = question.purpose
    text = None if purpose is None else getattr(purpose, words.language)
    return (words.allowed if decision.allowed else words.denied).format(
        user=question.user,
        action=words.actions.get(question.action, question.action.value),
        camera=question.camera,
        purpose=words.no_purpose if text is None else words.purpose.format(text=text),
        until=words.until.format(at=_moment(decision.expires_at)) if decision.expires_at else "",
    )


def _rule(words: _Words, rule: str, grants: Mapping[str, GrantFacts]) -> str:
    kind, _, name = rule.partition(":")
    if kind == "role":
        return words.role.format(name=name)
    if kind == "sharing":
        return words.shared
    facts = grants.get(rule)
    if facts is None:
        return words.unknown_grant.format(id=rule)
    return words.grant.format(
        id=rule,
        giver=facts.giver,
        subject=f"{words.subjects[facts.subject_kind]} {facts.subject}",
        object=f"{words.objects[facts.object_kind]} {facts.object}",
    )


def _why(words: _Words, question: Question, match: RuleMatch, facts: GrantFacts | None) -> str:
    if match.reason is Reason.PURPOSE_NOT_ALLOWED and question.owner_purposes is not None:
        return words.missed_the_list.format(purposes=_listed(words, question.owner_purposes))
    template = words.misses.get(match.reason, words.misses[Reason.MALFORMED_RULE])
    purposes = None if facts is None else facts.purposes
    return template.format(
        valid_from=_moment(facts.valid_from if facts else None),
        valid_to=_moment(facts.valid_to if facts else None),
        hours=_hours(words, facts.schedule if facts else None),
        purposes=_listed(words, purposes or ()),
    )


def _listed(words: _Words, purposes: Iterable[Told]) -> str:
    return words.comma.join(getattr(text, words.language) for text in purposes) or words.no_purposes


def _hours(words: _Words, schedule: Schedule | None) -> str:
    if schedule is None:
        return "?"
    windows = [f"{_days(words, window.days)} {window.start}-{window.end}" for window in schedule.windows]
    return f"{words.comma.join(windows)} {schedule.zone}"


def _days(words: _Words, days: Iterable[int]) -> str:
    return "/".join(words.days[day - 1] for day in sorted(set(days)))


def _moment(at: datetime | None) -> str:
    return "?" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
