"""What `/metrics` says, in Prometheus' text format: gauges read when asked, counters of control's own."""

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.admission import Admission, Limit, LimitKind, limits_of
from gateway.analyses import Analyses
from gateway.head_delivery import HeadDelivery
from gateway.ledger_watch import LedgerWatch
from gateway.live import LiveSessions
from gateway.live_session import EndReason, LiveSession
from gateway.waiting import WaitingRoom
from gateway.workers import RelayWorkers

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    def __init__(
        self,
        live: LiveSessions,
        workers: RelayWorkers,
        analyses: Analyses,
        admission: Admission,
        waiting: WaitingRoom,
        ledger_watch: LedgerWatch,
        deliveries: HeadDelivery,
    ) -> None:
        self._live = live
        self._workers = workers
        self._analyses = analyses
        self._admission = admission
        self._waiting = waiting
        self._ledger_watch = ledger_watch
        self._deliveries = deliveries
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._requests = Counter(
            "custos_http_requests",
            "Requests by route and status",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "custos_http_request_seconds", "Time to answer", buckets=_SECONDS, registry=self._registry
        )
        self._ended = Counter(
            "custos_sessions_ended", "Sessions that ended, by reason", ("reason",), registry=self._registry
        )
        for reason in EndReason:
            self._ended.labels(reason.value)
        self._bytes = Counter(
            "custos_sent_bytes", "Media bytes of sessions that ended", registry=self._registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.observe(seconds)

    def session_over(self, session: LiveSession) -> None:
        self._ended.labels(str(session.ending)).inc()
        self._bytes.inc(session.bytes_sent)

    def collect(self) -> Iterator[Metric]:
        """Prometheus' custom collector: called at each scrape."""
        sessions = GaugeMetricFamily("custos_sessions", "Sessions by state", labels=("state",))
        for state, count in Tally(str(session.state) for session in self._live.all()).items():
            sessions.add_metric((state,), count)
        yield sessions
        yield from self._limits()
        yield GaugeMetricFamily("custos_waiting", "Requests that wait for a place", value=len(self._waiting))
        cameras = GaugeMetricFamily("custos_cameras", "Cameras in use by state", labels=("state",))
        reports = self._workers.reports()
        for state, count in Tally(report.state for report in reports).items():
            cameras.add_metric((state,), count)
        yield cameras
        yield GaugeMetricFamily(
            "custos_ingest_bits_per_second",
            "Bit rate of all cameras in use (p95 of a minute)",
            value=sum(report.bit_rate_bps for report in reports),
        )
        yield GaugeMetricFamily(
            "custos_relay_workers", "Relay workers connected", value=self._workers.connected
        )
        yield GaugeMetricFamily(
            "custos_ledger_writable",
            "1 while the ledger can be written; 0: every picture is ended",
            value=float(self._ledger_watch.is_available),
        )
        delivered = CounterMetricFamily(
            "custos_ledger_heads_delivered",
            "Signed heads posted to departments",
            labels=("department", "outcome"),
        )
        for outcome, counts in (("ok", self._deliveries.delivered), ("failed", self._deliveries.failed)):
            for department, count in counts.items():
                delivered.add_metric((department, outcome), count)
        yield delivered
        yield GaugeMetricFamily("custos_analyses", "Analyses running", value=len(self._analyses.all()))

    def _limits(self) -> Iterator[Metric]:
        """Of users and cameras, who are many and whose names are nobody's business here, only the fullest."""
        running: Tally[Limit] = Tally()
        for session in self._live.all():
            for limit in limits_of(session):
                running[limit] += session.reserved_bps if limit.kind is LimitKind.BANDWIDTH else 1
        used = GaugeMetricFamily(
            "custos_limit_running",
            "Sessions, or reserved bits per second, that count in a limit",
            labels=("limit", "name"),
        )
        allowed = GaugeMetricFamily("custos_limit_bound", "What a limit allows", labels=("limit", "name"))
        shown = {Limit(LimitKind.TOTAL), Limit(LimitKind.BANDWIDTH), *running}
        fullest: Tally[LimitKind] = Tally()
        for limit in sorted(shown):
            bound = self._admission.bound(limit)
            if bound is None:
                continue
            if limit.kind in {LimitKind.USER, LimitKind.CAMERA}:
                fullest[limit.kind] = max(fullest[limit.kind], running[limit])
                continue
            used.add_metric((limit.kind.value, limit.name), running[limit])
            allowed.add_metric((limit.kind.value, limit.name), bound)
        for kind, count in fullest.items():
            used.add_metric((kind.value, ""), count)
        yield used
        yield allowed

    def text(self) -> bytes:
        return generate_latest(self._registry)
