"""What this library counts. `docs/metrics.md` lists every name; a test compares the two.

No label ever holds an id: a series per session would grow without a bound. What is counted for each frame is counted in
plain attributes (`Traffic`, `Durations`) and added up once a second: a lock and, where workers share their numbers, a
write to a file for each would cost more than the frame.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, values

# Providers of sign-ins that an app has, and routes of an application: an app that has more makes them up as it goes.
_MOST_PROVIDERS = 20
_MOST_ROUTES = 200
OTHER = "other"

# From what nobody notices to what everybody does; the browser's own 16 ms frame lies in the first third.
_EVENT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_PAUSE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_UPLOAD_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600)
_STORE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
# A dialog at the provider: people look for their second factor.
_FLOW_SECONDS = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
# From a page that is closed at once to a screen on a wall.
_LIFE_SECONDS = (1, 10, 60, 300, 900, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600)
# The client's first attempts come after 0.5, 1, 2, 4, … seconds; sessions wait for an hour.
_DARK_SECONDS = (0.25, 0.75, 1.5, 3, 6, 12, 30, 60, 300, 900, 3600)

_OPERATIONS = (
    "put", "get", "take", "add", "swap", "delete", "increase", "announce", "withdraw", "workers", "check",
)  # fmt: skip

_RESUMES = {
    "local": ("resumed", "in_use", "other_app", "other_browser", "crashed"),
    "missed": ("unknown", "forged"),
}


class Traffic:
    """Frames and bytes of one worker; the loop's thread counts them, and nobody else."""

    __slots__ = ("frames_received", "frames_sent", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self.frames_received = self.frames_sent = self.received_bytes = self.sent_bytes = 0


class Durations:
    """How long things took. One thread at a time may note them; `settle` adds what is new to the histogram."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_seconds", "_settled", "_settled_seconds")

    def __init__(self, histogram: Times) -> None:
        self._histogram = histogram
        self._bounds = histogram.bounds
        self._counts = [0] * (len(self._bounds) + 1)
        self._settled = self._counts.copy()
        self._seconds = self._settled_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Something took so long."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def settle(self) -> None:
        """Add what was noted since the last time to the histogram."""
        counts, seconds = self._counts.copy(), self._seconds
        if counts != self._settled:
            new = [now - before for now, before in zip(counts, self._settled, strict=True)]
            self._histogram.add(new, seconds - self._settled_seconds)
            self._settled, self._settled_seconds = counts, seconds


class Times(Histogram):
    """A histogram of seconds that takes many observations at once, which prometheus_client's own does not."""

    @property
    def bounds(self) -> tuple[float, ...]:
        """The upper bounds of the buckets, without the last one's, which has none."""
        return tuple(self._upper_bounds[:-1])

    def add(self, counts: Sequence[int], seconds: float) -> None:
        """So many observations in each bucket, which took so long together."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(seconds)


class Few:
    """Label values that come from outside: the first so many are kept, the others are all `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        with self._lock:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class Metrics:
    """The counters and gauges of one worker; `worker` names it among those that share their numbers.

    A label whose values are known is declared with them, so that each series is there, with 0, before anything has
    happened: an alert sees the first time, too.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, worker: str | None = None) -> None:
        self.registry = registry
        self.label_values: dict[str, dict[str, tuple[str, ...]]] = {}
        # files are named after processes, unless somebody has numbered the workers
        self.by_process = worker is None and bool(getattr(values.ValueClass, "_multiprocess", False))
        self.worker = worker or (str(os.getpid()) if self.by_process else "0")
        self._declare_sessions()
        self._declare_connections()
        self._declare_doors()
        self._declare_worker()
        self._declare_cluster()
        self.traffic = Traffic()
        self.events = Durations(self.event_seconds)
        self.lags = Durations(self.event_loop_lag_seconds)
        self.pauses = Durations(self.gc_pause_seconds)
        self._collections = _collections()

    def settle(self) -> None:
        """Add up what was counted without locks; on the loop's thread."""
        traffic = self.traffic
        if traffic.frames_received:
            self.frames_received.inc(traffic.frames_received)
            self.received_bytes.inc(traffic.received_bytes)
        if traffic.frames_sent:
            self.frames_sent.inc(traffic.frames_sent)
            self.sent_bytes.inc(traffic.sent_bytes)
        traffic.reset()
        for durations in (self.events, self.lags, self.pauses):
            durations.settle()
        before, self._collections = self._collections, _collections()
        for generation, (now, earlier) in enumerate(zip(self._collections, before, strict=True)):
            if now > earlier:
                self.gc_collections.labels(generation).inc(now - earlier)

    # --- declarations ------------------------------------------------------------------------------------------------

    def _declare_sessions(self) -> None:
        self.sessions = self._gauge("flet_sessions", "Living sessions.", state=("connected", "detached"))
        self.connected, self.detached = self.sessions.labels("connected"), self.sessions.labels("detached")
        self.worker_sessions = self._gauge("flet_worker_sessions", "Living sessions, by worker.", worker=())
        self.here = self.worker_sessions.labels(self.worker)
        self.sessions_started = self._counter("flet_sessions_started", "Sessions started.")
        self.sessions_ended = self._counter(
            "flet_sessions_ended", "Sessions ended, by reason.",
            reason=("expired", "evicted", "idle", "crashed", "unclaimed", "shutdown"),
        )  # fmt: skip
        self.session_seconds = self._times("flet_session_seconds", "Whole lives of sessions.", _LIFE_SECONDS)
        self.session_dark_seconds = self._times(
            "flet_session_dark_seconds", "Time without a browser until one came back.", _DARK_SECONDS
        )
        results = tuple(result for some in _RESUMES.values() for result in some)
        self.resumes = self._counter(
            "flet_resumes", "Credentials presented, by where it led and what became of them.",
            path=(*_RESUMES, "relay"), result=results,
        )  # fmt: skip
        for path, some in _RESUMES.items():
            for result in some:
                self.resumes.labels(path, result)
        self.errors = self._counter(
            "flet_app_errors", "Exceptions in the app's own code, by place.",
            where=("main", "handler", "task", "on_error"),
        )  # fmt: skip

    def _declare_connections(self) -> None:
        self.connections = self._gauge("flet_connections", "Open websockets.")
        self.connections_closed = self._counter(
            "flet_connections_closed", "Websockets ended, by close code.",
            code=("1001", "1003", "1006", "1007", "1008", "1009", "1011", "1012", "1013"),
        )  # fmt: skip
        self.frames_received = self._counter("flet_frames_received", "Websocket messages from browsers.")
        self.frames_sent = self._counter("flet_frames_sent", "Websocket messages to browsers.")
        self.received_bytes = self._counter("flet_received_bytes", "Bytes in websocket messages from browsers.")
        self.sent_bytes = self._counter("flet_sent_bytes", "Bytes in websocket messages to browsers.")
        self.event_seconds = self._times(
            "flet_event_seconds", "From an event's frame to the end of its handler.", _EVENT_SECONDS
        )
        self.send_queue_bytes = self._gauge("flet_send_queue_bytes", "Bytes that wait for connected browsers to read.")
        self.send_queue_drops = self._counter(
            "flet_send_queue_drops", "Times that what waited was dropped and the browser cut, for it read too slowly."
        )
        self.invalid_frames = self._counter(
            "flet_invalid_frames", "Frames that broke the protocol.",
            kind=(
                "binary", "json", "shape", "action", "type", "too_big", "too_many", "unregistered", "registered",
            ),
        )  # fmt: skip
        self.refused = self._counter(
            "flet_refused", "What a client may not do and tried, by kind.",
            kind=(
                "event_target", "event_name", "event_data", "event_unheard", "event_disabled", "event_invisible",
                "event_read_only", "event_internal", "client_error", "update_target", "update_property",
                "update_disabled", "update_invisible", "update_read_only", "full",
            ),
        )  # fmt: skip
        self.throttled = self._counter("flet_throttled", "Times a connection was read more slowly.")

    def _declare_doors(self) -> None:
        self.handshakes_refused = self._counter(
            "flet_handshakes_refused", "Websocket handshakes refused before they were accepted, by reason.",
            reason=(
                "bad_host", "unknown_host", "bad_origin", "no_origin", "cross_origin", "rate", "address_connections",
                "browser_connections", "unregistered",
            ),
        )  # fmt: skip
        self.uploads_started = self._counter("flet_uploads_started", "Upload requests that have come.")
        self.uploads = self._counter("flet_uploads", "Upload requests answered, by status code.", status=())
        for status in ("201", "204"):
            self.uploads.labels(status)
        self.upload_bytes = self._counter("flet_upload_bytes", "Bytes received in uploads.")
        self.uploads_active = self._gauge("flet_uploads_active", "Uploads in progress.")
        self.upload_seconds = self._times("flet_upload_seconds", "Duration of uploads.", _UPLOAD_SECONDS)
        self.upload_refusals = self._counter(
            "flet_upload_refusals", "Refused uploads, by reason.",
            error=(
                "bad_request", "bad_name", "incomplete", "no_signature", "bad_signature", "expired", "uploads_off",
                "method_not_allowed", "too_slow", "already_used", "in_progress", "name_is_taken", "length_required",
                "too_large", "unsupported_encoding", "too_many_uploads", "session_uploads", "session_files",
                "session_bytes", "client_gone", "unavailable", "no_space", "quota", "storage",
            ),
        )  # fmt: skip
        self.upload_files_removed = self._counter(
            "flet_upload_files_removed", "Files removed from upload directories: left by a kill, or too old.",
            reason=("left_over", "age"),
        )  # fmt: skip
        self.oauth = self._counter(
            "flet_oauth", "Sign-in steps, by what became of them.",
            result=(
                "started", "completed", "provider_error", "redirect_refused", "bad_request", "unknown", "replayed",
                "superseded", "other_browser", "session_gone", "unavailable",
            ),
        )  # fmt: skip
        self.oauth_flows = self._counter(
            "flet_oauth_flows", "Sign-ins, by provider and how far they came.",
            provider=(), outcome=("started", "completed", "provider_error", "superseded"),
        )  # fmt: skip
        self.oauth_flow_seconds = self._times(
            "flet_oauth_flow_seconds", "From the start of a sign-in to its return.", _FLOW_SECONDS, provider=()
        )
        self.provider = Few(_MOST_PROVIDERS)
        self.http_requests = self._counter(
            "flet_http_requests", "HTTP requests answered.", route=(), method=(), status=()
        )
        self.http_request_seconds = self._times(
            "flet_http_request_seconds", "From an HTTP request to the end of its answer.", _REQUEST_SECONDS, route=()
        )
        self.route = Few(_MOST_ROUTES)

    def _declare_worker(self) -> None:
        self.event_loop_lag_seconds = self._times(
            "flet_event_loop_lag_seconds", "How late the event loop is, ten times a second.", _LAG_SECONDS
        )
        self.worker_memory_bytes = self._gauge("flet_worker_memory_bytes", "Memory that a worker takes.", worker=())
        self.worker_memory_used_ratio = self._gauge(
            "flet_worker_memory_used_ratio", "Memory in use, of what makes a worker take no new sessions.", worker=()
        )
        self.worker_start_time_seconds = self._gauge(
            "flet_worker_start_time_seconds", "When a worker began, in Unix time.", worker=()
        )
        self.worker_ready = self._gauge("flet_worker_ready", "Whether a worker takes new sessions.", worker=())
        self.ready = self.worker_ready.labels(self.worker)
        self.gc_collections = self._counter(
            "flet_gc_collections", "Runs of Python's garbage collector.", generation=("0", "1", "2")
        )
        self.gc_pause_seconds = self._times(
            "flet_gc_pause_seconds", "Duration of runs of the garbage collector.", _PAUSE_SECONDS
        )
        self.build_info = self._gauge(
            "flet_build_info", "Always 1: what runs here.", mode="livemax", version=(), python=(), flet=()
        )

    def _declare_cluster(self) -> None:
        # not flet_relays, which as a family of its own would be that of flet_relays_total
        self.relays_active = self._gauge("flet_relays_active", "Connections that are relayed to their owner.")
        self.relays = self._counter(
            "flet_relays", "Connections relayed to their owner, by outcome.",
            outcome=("relayed", "refused", "gone", "too_many"),
        )  # fmt: skip
        self.relay_bytes = self._counter(
            "flet_relay_bytes", "Bytes relayed, as seen from the browser.", direction=("received", "sent")
        )
        self.store_seconds = self._times(
            "flet_store_seconds", "Duration of the store's operations.", _STORE_SECONDS, operation=_OPERATIONS
        )
        self.store_errors = self._counter(
            "flet_store_errors", "The store's operations that failed.", operation=_OPERATIONS
        )
        # workers that say 0 are what matters; who has not asked yet knows of no failure
        self.store_up = self._gauge("flet_store_up", "Whether all workers reach the store.", mode="livemin")
        self.store_up.set(1)
        self.pubsub_messages = self._counter(
            "flet_pubsub_messages", "Messages between workers.", direction=("received", "sent")
        )
        self.pubsub_dropped = self._counter(
            "flet_pubsub_dropped", "Messages that got lost, by reason.",
            reason=("queue_full", "worker_gone", "unknown_class", "malformed"),
        )  # fmt: skip
        self.pubsub_lag_seconds = self._times(
            "flet_pubsub_lag_seconds", "From sending a message to its arrival in another worker.", _LAG_SECONDS
        )
        # each worker says how many it sees
        self.cluster_workers = self._gauge("flet_cluster_workers", "Workers that know each other.", mode="livemax")

    def _counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        counter = Counter(name, text, self._labelled(name, labels), registry=self.registry)
        if len(labels) == 1:
            for value in self.label_values[name][next(iter(labels))]:
                counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str, mode: str = "livesum", **labels: Iterable[str]) -> Gauge:
        """`mode`: how those of several workers are put together; "live" leaves out the dead ones."""
        names = self._labelled(name, labels)
        return Gauge(name, text, names, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def _times(self, name: str, text: str, bounds: Sequence[float], **labels: Iterable[str]) -> Times:
        return Times(name, text, self._labelled(name, labels), buckets=bounds, registry=self.registry)

    def _labelled(self, name: str, labels: dict[str, Iterable[str]]) -> tuple[str, ...]:
        self.label_values[name] = {label: tuple(known) for label, known in labels.items()}
        return tuple(labels)

    # --- the worker --------------------------------------------------------------------------------------------------

    def appear(self) -> None:
        """The worker has started."""
        self.worker_start_time_seconds.labels(self.worker).set(time.time())
        self.ready.set(1)

    def disappear(self) -> None:
        """The worker ends: what it was the only one to say is not true any more."""
        self.settle()
        self.send_queue_bytes.set(0)
        self.ready.set(0)
        self.worker_memory_bytes.labels(self.worker).set(0)

    def resumed(self, result: str, *, relayed: bool = False) -> None:
        """Count what a credential has led to; `relayed` if another worker has the websocket."""
        path = "missed" if result in _RESUMES["missed"] else "relay" if relayed else "local"
        self.resumes.labels(path, result).inc()


def _collections() -> list[int]:
    """How often the garbage collector has run, by generation."""
    return [generation["collections"] for generation in gc.get_stats()]
