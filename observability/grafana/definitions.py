"""What is on the dashboards. How it looks in Grafana's JSON is in `panels.py`.

Labels that a legend shows are bounded (docs/metrics.md), so no panel has more lines than can be read.
"""

from __future__ import annotations

from typing import Any

from panels import Choice, Dashboard, Panel, Query

APP = 'job=~"$job",instance=~"$instance"'
NGINX = 'job=~"$nginx_job",instance=~"$nginx"'
_OF_APP = (
    Choice("job", "Installation", "flet_build_info", "job"),
    Choice("instance", "Replica", 'flet_build_info{job=~"$job"}', "instance"),
)
_OF_NGINX = (
    Choice("nginx_job", "Installation", "nginx_up", "job"),
    Choice("nginx", "Exporter", 'nginx_up{job=~"$nginx_job"}', "instance"),
)
_STARTS = {"A worker started": f"changes(flet_worker_start_time_seconds{{{APP}}}[1m]) > 0"}

# --- the words in which queries are written ---


def now(metric: str, by: str = "", where: str = "", how: str = "sum", of: str = APP) -> str:
    """A gauge, added up over workers and replicas."""
    return f"{how}{_by(by)} ({metric}{{{_and(where, of)}}})"


def rate(metric: str, by: str = "", where: str = "", of: str = APP) -> str:
    """A counter, per second."""
    return f"sum{_by(by)} (rate({metric}{{{_and(where, of)}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', f'{by}, le' if by else 'le')})"


def quantiles(histogram: str) -> list[Query]:
    """How long it takes half of them, and the slowest."""
    return [Query(quantile(share, histogram), f"{share:.0%} are faster") for share in (0.5, 0.9, 0.99)]


def or_zero(expr: str) -> str:
    """For what may not have happened since the start: zero is then the truth."""
    return f"{expr} or vector(0)"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _and(where: str, of: str) -> str:
    return f"{of},{where}" if where else of


def lines(title: str, about: str, *queries: Query, unit: str, **look: Any) -> Panel:
    return Panel(title, about, queries, unit, **look)


def areas(title: str, about: str, *queries: Query, unit: str, **look: Any) -> Panel:
    """Lines whose sum means something."""
    return Panel(title, about, queries, unit, stacked=True, **look)


def number(title: str, about: str, expr: str, unit: str, *steps: tuple[float | None, str], **look: Any) -> Panel:
    """One figure in the colour of the last of its `steps` that it reaches."""
    steps = steps or ((None, "green"),)
    return Panel(title, about, [Query(expr, title)], unit, kind="stat", width=4, height=4, steps=steps, **look)


def table(title: str, about: str, *queries: Query, **look: Any) -> Panel:
    return Panel(title, about, queries, "short", kind="table", **look)


# --- panels that more than one dashboard shows ---

SESSIONS = areas(
    "Sessions",
    "Living sessions. A detached one waits for its browser until it expires; it still needs memory.",
    Query(now("flet_sessions", "state"), "{{state}}"),
    unit="short",
)
CAME_BACK = areas(
    "Users who came back",
    "Browsers that presented a credential, by what became of it. resumed: the user kept the place; unknown: the "
    "session is gone, as after a restart; in_use: a second tab.",
    Query(rate("flet_resumes_total", "result"), "{{result}}"),
    unit="reqps",
)
PATHS = areas(
    "Where they found their session",
    "local: the connection reached the session's own worker; relay: another worker passes it on, because affinity at "
    "the proxy did not hold; missed: the session was not found.",
    Query(rate("flet_resumes_total", "path"), "{{path}}"),
    unit="reqps",
)
EVENTS = lines(
    "Time to handle an event",
    "From a click's arrival until the app's handler has ended. What a handler waits for, such as a dialog, counts.",
    *quantiles("flet_event_seconds"),
    unit="s",
)
APP_ERRORS = lines(
    "Errors of the app",
    "Exceptions in the app's own code, by place: main, a handler, a task. Each is an app_error in the log.",
    Query(rate("flet_app_errors_total", "where"), "{{where}}"),
    unit="cps",
)
UPLOADS = areas(
    "Uploads",
    "Finished upload requests, by HTTP status: 4xx are refused for what was sent, 5xx for what the server lacks.",
    Query(rate("flet_uploads_total", "status"), "{{status}}"),
    unit="reqps",
)
SIGN_INS = lines(
    "Sign-ins",
    "Sign-ins that were started, and what became of the callbacks that came.",
    Query(rate("flet_oauth_total", "result"), "{{result}}"),
    unit="reqps",
)
REQUESTS = areas(
    "HTTP requests",
    "The app's answers, by status. What nginx answers from its cache does not come here.",
    Query(rate("flet_http_requests_total", "status"), "{{status}}"),
    unit="reqps",
)
SESSIONS_OF_WORKERS = lines(
    "Sessions of each worker",
    "Even, if affinity spreads them well.",
    Query(now("flet_worker_sessions", "instance, worker"), "{{instance}} {{worker}}"),
    unit="short",
)

# --- the dashboards ---

_RESUMED = rate("flet_resumes_total", where='result="resumed"')
_RESUMED_OR_LOST = rate("flet_resumes_total", where='result=~"resumed|unknown"')

OVERVIEW = Dashboard(
    "overview",
    "Overview",
    "What users see: whether they get in, keep their place and get answers.",
    {
        "Now": [
            number("Users", "Sessions with a browser.", now("flet_sessions", where='state="connected"'), "short"),
            number(
                "Kept their place",
                "Of the users who came back, the share whose session was still there.",
                f"{_RESUMED} / {_RESUMED_OR_LOST}",
                "percentunit",
                *((None, "red"), (0.9, "orange"), (0.99, "green")),
                maximum=1,
                no_value="nobody was away",
            ),
            number(
                "Clicks take",
                "Nine of ten events are handled in less.",
                quantile(0.9, "flet_event_seconds"),
                "s",
                *((None, "green"), (0.25, "orange"), (1, "red")),
                no_value="no clicks",
            ),
            number(
                "Errors of the app",
                "Exceptions in the app's own code, per minute.",
                or_zero(f"60 * {rate('flet_app_errors_total')}"),
                "cpm",
                *((None, "green"), (1, "orange"), (10, "red")),
            ),
            number(
                "Workers that take sessions",
                "The share of all workers that is ready: loaded, not full, not draining.",
                now("flet_worker_ready", how="avg"),
                "percentunit",
                *((None, "red"), (0.5, "orange"), (1, "green")),
                maximum=1,
            ),
            number(
                "Alerts",
                "How many are firing; observability/runbook.md says what to do about each.",
                or_zero('count(ALERTS{alertstate="firing"})'),
                "short",
                *((None, "green"), (1, "red")),
            ),
        ],
        "Users": [SESSIONS, CAME_BACK, EVENTS],
        "What goes wrong": [
            APP_ERRORS,
            areas(
                "Turned away",
                "Websocket handshakes refused, by reason, and browsers that found no room (full).",
                Query(rate("flet_handshakes_refused_total", "reason"), "{{reason}}"),
                Query(or_zero(rate("flet_refused_total", where='kind="full"')), "full"),
                unit="reqps",
            ),
            table(
                "Alerts",
                "Pending and firing alerts.",
                Query('count by (alertname, severity, alertstate) (ALERTS{severity!=""})', "count"),
                no_value="none",
            ),
        ],
        "What they do": [REQUESTS, UPLOADS, SIGN_INS],
    },
    _OF_APP,
    _STARTS,
)

OF_SESSIONS = Dashboard(
    "sessions",
    "Sessions",
    "How sessions begin, go on over lost connections, and end.",
    {
        "Sessions": [
            SESSIONS,
            lines(
                "Started and ended",
                "expired: the browser did not come back; evicted: room was needed, so a bound is too low.",
                Query(rate("flet_sessions_started_total"), "started"),
                Query(rate("flet_sessions_ended_total", "reason"), "ended: {{reason}}"),
                unit="cps",
            ),
            lines(
                "Length of sessions",
                "From start to end, of the sessions that have ended.",
                *quantiles("flet_session_seconds"),
                unit="s",
            ),
        ],
        "Coming back": [
            CAME_BACK,
            PATHS,
            lines(
                "Time in the dark",
                "How long users were without their session, from the loss of the connection to the resume.",
                *quantiles("flet_session_dark_seconds"),
                unit="s",
            ),
        ],
        "Input": [
            EVENTS,
            lines(
                "Refused input",
                "What clients tried and their page does not offer. event_unheard and client_error are harmless.",
                Query(rate("flet_refused_total", "kind"), "{{kind}}"),
                unit="cps",
            ),
            lines(
                "Broken frames, slowed readers",
                "Frames that broke the protocol and ended their connection, by kind; how often a connection was read "
                "more slowly because of FLET_EVENTS_PER_SECOND.",
                Query(rate("flet_invalid_frames_total", "kind"), "frame: {{kind}}"),
                Query(rate("flet_throttled_total"), "slowed"),
                unit="cps",
            ),
        ],
        "Connections": [
            areas(
                "Connections closed",
                "By close code: 1006 is a browser that left, 1012 a restart, 1013 a browser that reads too slowly, or "
                "a full server.",
                Query(rate("flet_connections_closed_total", "code"), "{{code}}"),
                unit="cps",
            ),
            lines(
                "Frames",
                "Websocket messages. The app's updates of one turn of the event loop share a message.",
                Query(rate("flet_frames_received_total"), "from browsers"),
                Query(rate("flet_frames_sent_total"), "to browsers"),
                unit="cps",
            ),
            lines(
                "Bytes",
                "Content of websocket messages, before compression.",
                Query(rate("flet_received_bytes_total"), "from browsers"),
                Query(rate("flet_sent_bytes_total"), "to browsers"),
                unit="Bps",
            ),
        ],
    },
    _OF_APP,
    _STARTS,
)

OF_UPLOADS = Dashboard(
    "uploads",
    "Uploads and sign-in",
    "Files that come in, and users who sign in with a provider.",
    {
        "Uploads": [
            UPLOADS,
            lines(
                "Started and refused uploads",
                "Refused by reason. no_space, quota, storage and unavailable are the server's, others the browser's.",
                Query(rate("flet_uploads_started_total"), "started"),
                Query(rate("flet_upload_refusals_total", "error"), "refused: {{error}}"),
                unit="reqps",
            ),
            lines(
                "Duration of uploads",
                "From the request until the file is in its place; mostly the users' networks.",
                *quantiles("flet_upload_seconds"),
                unit="s",
            ),
            lines("Bytes", "Received in uploads.", Query(rate("flet_upload_bytes_total"), "received"), unit="Bps"),
            lines("In progress", "Uploads at this moment.", Query(now("flet_uploads_active"), "uploads"), unit="short"),
            lines(
                "Files removed",
                "Left over from a kill, or older than FLET_UPLOAD_MAX_AGE.",
                Query(or_zero(rate("flet_upload_files_removed_total")), "removed"),
                unit="cps",
            ),
        ],
        "Sign-in": [
            SIGN_INS,
            lines(
                "Outcome by provider",
                "What became of sign-ins, by the provider's host.",
                Query(rate("flet_oauth_flows_total", "provider, outcome"), "{{provider}}: {{outcome}}"),
                unit="reqps",
            ),
            lines(
                "Time to sign in",
                "Nine of ten are faster, the user's time at the provider included.",
                Query(quantile(0.9, "flet_oauth_flow_seconds", "provider"), "{{provider}}"),
                unit="s",
            ),
        ],
    },
    _OF_APP,
    _STARTS,
)

OF_WORKERS = Dashboard(
    "workers",
    "Workers",
    "The processes: memory, event loop, garbage collection, HTTP.",
    {
        "Workers": [
            table(
                "Workers",
                "The processes of each replica. A low age without a deploy is a crash.",
                Query(now("flet_worker_ready", "instance, worker", how="max"), "ready"),
                Query(now("flet_worker_sessions", "instance, worker"), "sessions"),
                Query(now("flet_worker_memory_bytes", "instance, worker"), "memory"),
                Query(f"time() - {now('flet_worker_start_time_seconds', 'instance, worker', how='max')}", "age"),
                width=16,
                units=(("memory", "bytes"), ("age", "dtdurations")),
            ),
            table(
                "Versions",
                "What runs; during a deploy there are two.",
                Query(now("flet_build_info", "version, flet, python", how="count"), "workers"),
            ),
            lines(
                "Memory",
                "Resident memory of each worker.",
                Query(now("flet_worker_memory_bytes", "instance, worker"), "{{instance}} {{worker}}"),
                unit="bytes",
            ),
            lines(
                "Memory of what there may be",
                "At 100% (ROOST_MAX_MEMORY) the worker takes no new sessions. 0: there is no limit.",
                Query(now("flet_worker_memory_used_ratio", "instance, worker"), "{{instance}} {{worker}}"),
                unit="percentunit",
            ),
            lines(
                "Memory per session",
                "All memory by all sessions; of few sessions it says little.",
                Query(f"{now('flet_worker_memory_bytes')} / {now('flet_sessions')}", "per session"),
                unit="bytes",
            ),
            SESSIONS_OF_WORKERS,
        ],
        "Event loop": [
            lines(
                "Lag",
                "How late the event loop comes to what is due. All users of a worker wait for so long: code that "
                "blocks belongs into a plain function.",
                *quantiles("flet_event_loop_lag_seconds"),
                unit="s",
            ),
            lines(
                "Garbage collections",
                "By generation; many of generation 2 are a sign of memory that grows.",
                Query(rate("flet_gc_collections_total", "generation"), "generation {{generation}}"),
                unit="cps",
            ),
            lines(
                "Pauses by garbage collection",
                "Nothing else runs in the worker meanwhile.",
                *quantiles("flet_gc_pause_seconds"),
                unit="s",
            ),
        ],
        "Sending": [
            lines(
                "Waiting to be sent",
                "Bytes in all send queues: browsers that read slowly.",
                Query(now("flet_send_queue_bytes", "instance"), "{{instance}}"),
                unit="bytes",
            ),
            lines(
                "Browsers cut",
                "Connections ended because a send queue was full, or nothing of it was taken for too long.",
                Query(or_zero(rate("flet_send_queue_drops_total")), "cut"),
                unit="cps",
            ),
            lines(
                "Open websockets",
                "Those that have not registered yet included.",
                Query(now("flet_connections", "instance"), "{{instance}}"),
                unit="short",
            ),
        ],
        "HTTP": [
            REQUESTS,
            lines(
                "Requests by route",
                "Routes are templates, so there are few of them.",
                Query(rate("flet_http_requests_total", "route"), "{{route}}"),
                unit="reqps",
            ),
            lines(
                "Time to answer",
                "Nine of ten requests are faster, by route.",
                Query(quantile(0.9, "flet_http_request_seconds", "route"), "{{route}}"),
                unit="s",
            ),
        ],
    },
    _OF_APP,
    _STARTS,
)

_ACCEPTED = rate("nginx_connections_accepted", of=NGINX)
_HANDLED = rate("nginx_connections_handled", of=NGINX)
_ASKED = rate("nginx_http_requests_total", of=NGINX)

OF_NGINX = Dashboard(
    "nginx",
    "nginx",
    "The proxy in front, as its stub_status page has it. What the app answers is on Workers.",
    {
        "Now": [
            number(
                "nginx answers",
                "Whether its exporter gets an answer.",
                now("nginx_up", how="min", of=NGINX),
                "bool_yes_no",
                *((None, "red"), (1, "green")),
            ),
            number("Connections", "Open ones of clients.", now("nginx_connections_active", of=NGINX), "short"),
            number("Requests", "Per second.", _ASKED, "reqps"),
            number(
                "Dropped connections",
                "Accepted and not handled, per second: nginx has used up its worker_connections.",
                f"{_ACCEPTED} - {_HANDLED}",
                "cps",
                *((None, "green"), (0.1, "red")),
            ),
        ],
        "Over time": [
            areas(
                "Connections by state",
                "waiting: kept alive, nothing asked; writing: being answered, which a websocket is all its life.",
                Query(now("nginx_connections_reading", of=NGINX), "reading"),
                Query(now("nginx_connections_writing", of=NGINX), "writing"),
                Query(now("nginx_connections_waiting", of=NGINX), "waiting"),
                unit="short",
                width=12,
            ),
            lines(
                "New connections and requests",
                "Many requests share a connection.",
                Query(_ACCEPTED, "connections"),
                Query(_ASKED, "requests"),
                unit="reqps",
                width=12,
            ),
        ],
    },
    _OF_NGINX,
)

OF_CLUSTER = Dashboard(
    "cluster",
    "Cluster",
    "What workers do for each other: find sessions, pass connections on, carry messages, share a store.",
    {
        "Finding sessions": [
            PATHS,
            lines(
                "Relays",
                "Connections that a worker passes on to the session's own worker, at this moment.",
                Query(now("flet_relays_active", "instance"), "{{instance}}"),
                unit="short",
            ),
            lines(
                "Relays by outcome",
                "Relays that were asked for.",
                Query(rate("flet_relays_total", "outcome"), "{{outcome}}"),
                unit="reqps",
            ),
            lines(
                "Relayed bytes",
                "Content of relayed frames, by direction.",
                Query(rate("flet_relay_bytes_total", "direction"), "{{direction}}"),
                unit="Bps",
            ),
            lines(
                "Workers known",
                "Living workers, as each replica sees them. If they differ for long, the network between them is cut.",
                Query(now("flet_cluster_workers", "instance", how="max"), "{{instance}}"),
                unit="short",
            ),
            SESSIONS_OF_WORKERS,
        ],
        "Store": [
            lines(
                "Store reached",
                "1: by all workers of the replica. At 0 connected users notice nothing; sign-ins fail, and "
                "reconnects that reach another worker find no session.",
                Query(now("flet_store_up", "instance", how="min"), "{{instance}}"),
                unit="short",
                maximum=1,
            ),
            lines(
                "Time of the store",
                "Nine of ten are faster, by operation.",
                Query(quantile(0.9, "flet_store_seconds", "operation"), "{{operation}}"),
                unit="s",
            ),
            lines(
                "Errors of the store",
                "Operations that failed.",
                Query(or_zero(rate("flet_store_errors_total")), "errors"),
                unit="cps",
            ),
        ],
        "Publish and subscribe": [
            lines(
                "Messages",
                "Of page.pubsub between workers, by direction.",
                Query(rate("flet_pubsub_messages_total", "direction"), "{{direction}}"),
                unit="cps",
            ),
            lines(
                "Time under way",
                "From the sender's worker to the receiver's.",
                *quantiles("flet_pubsub_lag_seconds"),
                unit="s",
            ),
            lines(
                "Dropped messages",
                "Messages that did not reach a worker: it was too slow, or gone.",
                Query(or_zero(rate("flet_pubsub_dropped_total")), "dropped"),
                unit="cps",
            ),
        ],
    },
    _OF_APP,
    _STARTS,
)

DASHBOARDS = (OVERVIEW, OF_SESSIONS, OF_UPLOADS, OF_WORKERS, OF_NGINX, OF_CLUSTER)
