"""The store: reading, and the unit of work through which everything is written and recorded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.heads import SignedHead, Verifier
from gateway.audit.liveness import SignOfLife
from gateway.audit.publication import HeadPublisher
from gateway.audit.records import AuditEvent, normalize
from gateway.store.adoption import adopt
from gateway.store.bootstrap import prepare
from gateway.store.engines import Engines, open_engines
from gateway.store.errors import StoreBusyError, unavailable
from gateway.store.identifiers import now_us
from gateway.store.ledger import signed_head
from gateway.store.schema import audit_heads
from gateway.store.seals import Seals
from gateway.store.signing_key import SigningKey
from gateway.store.unit import T, UnitFunction
from gateway.store.writer import STATEMENT_ERRORS, Writer


@dataclass(frozen=True)
class StoreSettings:
    """`url` None: SQLite in the data folder, where the ledger's key and published heads always are.

    `lock_seconds`: while another process holds the ledger's lock, whoever must write waits so long at most.
    """

    data_folder: Path
    url: str | None = field(default=None, repr=False)
    timeout_seconds: float = 5.0
    lock_seconds: float = 0.8
    read_connections: int = 4
    max_queued_units: int = 2048
    max_group_units: int = 128
    publish_seconds: float = 60.0
    publish_records: int = 1000


class Store:
    """Opened by `Store.open`, which owns the tasks of its writer and its publisher."""

    def __init__(
        self, engines: Engines, writer: Writer, publisher: HeadPublisher, verifier: Verifier, seals: Seals
    ) -> None:
        self.seals = seals
        self._engines = engines
        self._writer = writer
        self._publisher = publisher
        self.verifier = verifier
        """The first key: what a chain of keys begins with."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: StoreSettings,
        *,
        clock: Callable[[], int] = now_us,
        on_head: Callable[[SignedHead], None] = lambda _: None,
    ) -> AsyncIterator["Store"]:
        """Create or migrate the database, and write until the context ends.

        `on_head` is told the newest head: the stored one first, then each that is committed. At a normal
        end the waiting units are committed and the last head is published. Raise StoreUnavailableError (the
        data folder's errors too), StoreVersionError, LedgerKeyError or KeyFileError.
        """
        engines = open_engines(
            settings.url,
            settings.data_folder,
            readers=settings.read_connections,
            timeout_seconds=settings.timeout_seconds,
            lock_seconds=settings.lock_seconds,
        )
        try:
            try:
                signer, first = await prepare(engines.writer, settings.data_folder, clock)
                seals = Seals.open(settings.data_folder)
            except (SQLAlchemyError, OSError) as error:
                raise unavailable(error) from error
            publisher = HeadPublisher(
                settings.data_folder, settings.publish_seconds, settings.publish_records
            )

            def tell(head: SignedHead) -> None:
                on_head(head)
                publisher.offer(head)

            writer = Writer(
                engines.writer,
                SigningKey(settings.data_folder, signer),
                clock,
                tell,
                seals,
                max_queued_units=settings.max_queued_units,
                max_group_units=settings.max_group_units,
            )
            store = cls(engines, writer, publisher, first, seals)
            head = await store.head()
            if head is not None:
                writer.begin_at(head)
                tell(head)
            async with _working(writer, publisher):
                if seals.is_new:
                    await store.run(adopt)
                    seals.keep()
                yield store
        finally:
            await engines.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that cannot write; from its first statement on it sees one snapshot.

        Raise StoreBusyError if none is free in time, StoreUnavailableError if the database fails.
        """
        is_connected = False
        try:
            async with self._engines.readers.connect() as connection:
                is_connected = True
                yield connection
        except PoolTimeoutError as error:
            raise StoreBusyError("too many reads are waiting") from error
        except DBAPIError as error:
            if isinstance(error, STATEMENT_ERRORS):
                raise
            raise unavailable(error) from error
        except OSError as error:
            if is_connected:
                raise
            raise unavailable(error) from error

    async def run(self, unit: UnitFunction[T]) -> T:
        """Run a unit of work; return its result once it, and what it recorded, is durable.

        Raise whatever the unit raises (then nothing of it was written), StoreBusyError, or
        StoreUnavailableError (nothing was acknowledged). See `Unit` for what a unit may do.
        """
        return await self._writer.submit(unit)

    @property
    def steps(self) -> int:
        """Grows while a long unit writes (`Unit.step`), although nothing else is written meanwhile."""
        return self._writer.steps

    async def record(self, *events: AuditEvent) -> None:
        """Record, and return once it is durable. Raise ValueError, or like `run`."""
        await self._writer.record([normalize(event) for event in events])

    async def head(self) -> SignedHead | None:
        """The newest signed head; None while the ledger is empty."""
        query = sa.select(audit_heads).order_by(audit_heads.c.tree_size.desc()).limit(1)
        async with self.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else signed_head(row, self.verifier.origin)

    def sign_of_life(self) -> SignOfLife | None:
        """That the newest head is the newest now; None while the ledger is empty."""
        return self._writer.sign_of_life()

    def on_published(self, listener: Callable[[SignedHead], None]) -> None:
        """Have `listener` called with each head once it is published; it must not raise."""
        self._publisher.listeners.append(listener)

    async def publish(self) -> None:
        """Publish the newest head now. Raise OSError if the file cannot be written."""
        await self._publisher.publish()


@asynccontextmanager
async def _working(writer: Writer, publisher: HeadPublisher) -> AsyncIterator[None]:
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(writer.run())
        publishing = tasks.create_task(publisher.run())
        try:
            yield
        # handed on below as it is: the group would wrap it
        except Exception as error:  # noqa: BLE001
            failure = error
        writer.close()
        await asyncio.wait([writing])
        publishing.cancel()
    if failure is not None:
        raise failure
    await publisher.publish()
