"""What this library counts. `docs/metrics.md` lists every name; a test compares the two.

No label ever holds an id: a series per session would grow without a bound.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)


class Metrics:
    """The counters and gauges of one worker."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.sessions = Gauge(
            "flet_sessions", "Living sessions.", ["state"], registry=registry, multiprocess_mode="livesum"
        )
        self.connected, self.detached = self.sessions.labels("connected"), self.sessions.labels("detached")
        self.sessions_started = self._counter("flet_sessions_started", "Sessions started.")
        self.sessions_ended = self._counter("flet_sessions_ended", "Sessions ended, by reason.", "reason")
        self.resumes = self._counter("flet_resumes", "Credentials presented, by what became of them.", "result")
        self.connections = Gauge("flet_connections", "Open websockets.", registry=registry, multiprocess_mode="livesum")
        self.connections_closed = self._counter("flet_connections_closed", "Websockets ended, by close code.", "code")
        self.frames_received = self._counter("flet_frames_received", "Websocket messages from browsers.")
        self.frames_sent = self._counter("flet_frames_sent", "Websocket messages to browsers.")
        self.invalid_frames = self._counter("flet_invalid_frames", "Frames that broke the protocol.", "kind")
        self.refused = self._counter("flet_refused", "What a client may not do and tried, by kind.", "kind")
        self.throttled = self._counter("flet_throttled", "Times a connection was read more slowly.")
        self.errors = self._counter("flet_app_errors", "Exceptions in the app's own code, by place.", "where")
        self.handshakes_refused = self._counter(
            "flet_handshakes_refused", "Websocket handshakes refused before they were accepted, by reason.", "reason"
        )
        self.uploads = self._counter("flet_uploads", "Upload requests, by status code.", "status")
        self.upload_bytes = self._counter("flet_upload_bytes", "Bytes received in uploads.")
        self.uploads_active = Gauge(
            "flet_uploads_active", "Uploads in progress.", registry=registry, multiprocess_mode="livesum"
        )
        self.upload_seconds = Histogram(
            "flet_upload_seconds", "Duration of uploads.", buckets=_SECONDS, registry=registry
        )
        self.upload_refusals = self._counter("flet_upload_refusals", "Refused uploads, by reason.", "error")
        self.upload_files_removed = self._counter(
            "flet_upload_files_removed", "Files removed from upload directories: left by a kill, or too old.", "reason"
        )
        self.oauth = self._counter("flet_oauth", "Sign-in steps, by what became of them.", "result")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
