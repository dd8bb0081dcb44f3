"""The undertaking (承诺书) that everybody accepts, once per version, before he sees a picture.

Whoever uses it is responsible (谁使用，谁负责): State Council Order 799, articles 17 and 20. The ledger keeps
the digest of what somebody accepted, so that nobody can change afterwards what it said.
"""

import hashlib
from typing import Annotated

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from gateway.audit.records import AuditEvent, AuditKind, DetailValue, Outcome
from gateway.enforcement import Circumstances, Enforcement, Grant
from gateway.forms import END
from gateway.principals import Principal, actor_of
from gateway.problems import Problem
from gateway.store.schema import undertakings, users
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import INSTALLATION, Action

MAX_UNDERTAKING_CHARS = 8000

Wording = Annotated[str, Meta(min_length=1, max_length=MAX_UNDERTAKING_CHARS, pattern=r"^[^\x00\x7f]*" + END)]


class UndertakingText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    zh: Wording
    en: Wording


class Undertaking(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    text: UndertakingText


FIRST = Undertaking(
    version=1,
    text=UndertakingText(
        zh="""本系统遵循“谁使用，谁负责”的原则。使用视频图像前，我承诺：
一、我只为履行职责、只为所申明的事由查看视频图像，并如实填写事由及案件、排班或工单编号。
二、我不向无权知悉的人员展示、转述、复制、录制或传播视频图像，不用其他设备翻拍。
三、我不将视频图像用于识别、跟踪与所申明事由无关的个人，尊重他人隐私和个人信息权益。
四、我妥善保管自己的账号和口令，不出借、不共用；离开时退出或交接。
五、我知悉：每一次查看均记录人员、单位、事由、内容和时间，记录不可删改，摄像机所属单位和审计人员可以查阅。
六、我知悉：违反上述承诺的，将被停止使用，并依照法律法规和单位纪律承担责任。""",
        en="""Whoever uses this system is responsible for it. Before I look at a picture, I undertake:
1. I look only in the course of my duty and only for the purpose that I declare. I state truthfully that \
purpose and the number of the case, roster or work order.
2. I do not show, describe, copy, record or pass on pictures to anybody who has no right to them. I do not \
film the screen.
3. I do not use pictures to identify or follow people who have nothing to do with the declared purpose. I \
respect their privacy and their rights in their personal information.
4. I keep my account and password to myself, lend them to nobody, and log out or hand over when I leave.
5. I know that every look is recorded with person, unit, purpose, content and time; that these records can \
neither be altered nor deleted; and that auditors and the department that owns the camera may read them.
6. I know that if I break this undertaking I lose my access and answer for it under the law and under my \
department's rules.""",
    ),
)
"""What an installation starts with."""


class UndertakingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version, and whether somebody has accepted it."""

    version: int
    accepted: bool


class Undertakings:
    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement

    async def load(self) -> None:
        """Tell the PEP what it has to insist on. Call once, after `insert_first`."""
        self._enforcement.undertaking_version = (await self.current()).version

    async def current(self) -> Undertaking:
        query = sa.select(undertakings).order_by(undertakings.c.version.desc()).limit(1)
        async with self._store.read() as conn:
            row = (await conn.execute(query)).one()
        return Undertaking(version=row.version, text=UndertakingText(zh=row.text_zh, en=row.text_en))

    def status(self, principal: Principal) -> UndertakingStatus:
        return UndertakingStatus(
            version=self._enforcement.undertaking_version or 0,
            accepted=self._enforcement.has_undertaken(principal),
        )

    async def accept(self, principal: Principal, version: int, circumstances: Circumstances) -> None:
        """Only people accept, each for himself and the newest version; to accept twice changes nothing.

        Raises Problem `access_denied` or `undertaking_outdated`.
        """
        if principal.kind != "person":
            raise Problem("access_denied", "a person accepts: who is responsible, or on duty")
        current = await self.current()
        if version != current.version:
            raise Problem("undertaking_outdated", f"version {current.version}")

        async def unit(work: Unit) -> None:
            accepted = await work.conn.execute(
                sa.update(users)
                .where(
                    users.c.id == principal.id,
                    sa.func.coalesce(users.c.undertaking_version, 0) < version,
                )
                .values(undertaking_version=version)
            )
            if accepted.rowcount == 1:
                work.record(
                    AuditEvent(
                        kind=AuditKind.UNDERTAKING_ACCEPTED,
                        outcome=Outcome.OK,
                        content=f"accept undertaking {version}",
                        **actor_of(principal),
                        remote=circumstances.remote,
                        request_id=circumstances.request_id,
                        detail=_digests(current),
                    )
                )

        await self._store.run(unit)

    async def publish(
        self, principal: Principal, text: UndertakingText, circumstances: Circumstances
    ) -> Undertaking:
        """From now on nobody opens a picture before he has accepted it; what runs, runs on.

        Raises Problem `access_denied`.
        """

        async def act(work: Unit, grant: Grant) -> Undertaking:
            newest = await work.conn.execute(sa.select(sa.func.max(undertakings.c.version)))
            undertaking = Undertaking(version=newest.scalar_one() + 1, text=text)
            await _insert(work, undertaking, principal.id)
            event = grant.event(
                AuditKind.UNDERTAKING_PUBLISHED, f"undertaking {undertaking.version}: {text.zh}"
            )
            work.record(msgspec.structs.replace(event, detail=_digests(undertaking)))
            work.after_commit(lambda: self._require(undertaking.version))
            return undertaking

        return await self._enforcement.perform(
            principal,
            Action.SECURITY_MANAGE,
            INSTALLATION,
            circumstances,
            "publish another undertaking",
            act,
        )

    def _require(self, version: int) -> None:
        self._enforcement.undertaking_version = version


async def insert_first(store: Store) -> None:
    """Give an installation that has none its first undertaking."""

    async def unit(work: Unit) -> None:
        if (await work.conn.execute(sa.select(undertakings.c.version).limit(1))).first() is not None:
            return
        await _insert(work, FIRST, None)
        work.record(
            AuditEvent(
                kind=AuditKind.UNDERTAKING_PUBLISHED,
                outcome=Outcome.OK,
                content=f"undertaking {FIRST.version}, which comes with the system: {FIRST.text.zh}",
                detail=_digests(FIRST),
            )
        )

    await store.run(unit)


async def _insert(work: Unit, undertaking: Undertaking, published_by: str | None) -> None:
    await work.conn.execute(
        sa.insert(undertakings).values(
            version=undertaking.version,
            text_zh=undertaking.text.zh,
            text_en=undertaking.text.en,
            published_by=published_by,
            published_at=work.now,
        )
    )


def _digests(undertaking: Undertaking) -> dict[str, DetailValue]:
    """SHA-256 of each wording in UTF-8."""
    return {
        "version": undertaking.version,
        "sha256_zh": hashlib.sha256(undertaking.text.zh.encode()).hexdigest(),
        "sha256_en": hashlib.sha256(undertaking.text.en.encode()).hexdigest(),
    }
