from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from flet_fastapi.errors import OptionError
from flet_fastapi.handshake import HandshakeRefused, Handshakes, Paces, Room, address_of, check
from flet_fastapi.identity import new_id
from flet_fastapi.metrics import Metrics
from flet_fastapi.options import Limits
from tests.conftest import Logs

REASONS = {
    "bad_host": 400, "unknown_host": 421, "bad_origin": 403, "no_origin": 403, "cross_origin": 403, "rate": 429,
    "address_connections": 429, "browser_connections": 429, "unregistered": 503,
}  # fmt: skip
PUBLIC, OTHER = "9.9.9.9", "8.8.8.8"


def scope(
    origin: str | None = "http://app.test", host: str | None = "app.test", scheme: str = "ws",
    client: str | None = None, browser: str | None = None, **extra: Any,
) -> dict[str, Any]:  # fmt: skip
    given = {"host": host, "origin": origin, "cookie": browser and f"flet_browser={browser}"}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value is not None]
    return {
        "type": "websocket", "scheme": scheme, "path": "/ws", "headers": headers,
        "client": (client, 1) if client else None, **extra,
    }  # fmt: skip


class Worker:
    """What the door knows of its worker, and a clock that stands still."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits.load(**limits)
        self.metrics = Metrics(CollectorRegistry())
        self.now = 1000.0
        self.door = Handshakes(self, lambda: self.now)

    def counted(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("flet_handshakes_refused_total", {"reason": reason}) or 0.0

    def refusal(self, **given: Any) -> str | None:
        """Why a handshake is refused; None if it is not."""
        full = given.pop("full", False)
        try:
            self.door.enter(scope(**given), full=full)
        except HandshakeRefused as refused:
            return refused.reason
        return None


SAME_ORIGIN = [
    ("http://app.test", "app.test", "ws"),
    ("https://app.test", "app.test", "wss"),
    ("https://app.test", "app.test:443", "wss"),
    ("http://app.test:80", "app.test", "ws"),
    ("http://app.test:8000", "app.test:8000", "http"),
    ("http://app.test", "APP.Test", "ws"),
    ("HTTP://App.test", "app.test", "ws"),
    ("http://[::1]:8000", "[::1]:8000", "ws"),
    ("http://my_service:1", "my_service:1", "ws"),
    ("http://xn--bcher-kva.test", "xn--bcher-kva.test", "ws"),
    ("http://app.test.", "app.test.", "ws"),
]


@pytest.mark.parametrize(("origin", "host", "scheme"), SAME_ORIGIN)
def test_page_of_the_app_may_connect(origin: str, host: str, scheme: str) -> None:
    assert Worker().refusal(origin=origin, host=host, scheme=scheme) is None


REFUSED = [
    ("https://app.test", "app.test", "ws", "cross_origin"),  # the proxy's scheme is not known: not trusted
    ("http://app.test", "app.test", "wss", "cross_origin"),
    ("http://app.test:8001", "app.test:8000", "ws", "cross_origin"),
    ("http://app.test", "app.test:8000", "ws", "cross_origin"),
    ("http://evil.test", "app.test", "ws", "cross_origin"),
    ("http://app.test.evil.test", "app.test", "ws", "cross_origin"),
    ("http://sub.app.test", "app.test", "ws", "cross_origin"),
    ("http://app.test.", "app.test", "ws", "cross_origin"),
    ("null", "app.test", "ws", "cross_origin"),
    (None, "app.test", "ws", "no_origin"),
    ("", "app.test", "ws", "bad_origin"),
    ("file://", "app.test", "ws", "bad_origin"),
    ("app.test", "app.test", "ws", "bad_origin"),
    ("http://app.test/", "app.test", "ws", "bad_origin"),
    ("http://app.test@evil.test", "app.test", "ws", "bad_origin"),
    ("http://evil.test\\@app.test", "app.test", "ws", "bad_origin"),
    ("http://app.test:99999", "app.test", "ws", "bad_origin"),
    ("http://app.test http://evil.test", "app.test", "ws", "bad_origin"),
    ("http://app.test,http://evil.test", "app.test", "ws", "bad_origin"),
    ("http://b\u00fccher.test", "app.test", "ws", "bad_origin"),
    ("http://" + "a" * 300, "app.test", "ws", "bad_origin"),
    ("http://app.test", None, "ws", "bad_host"),
    ("http://", "", "ws", "bad_host"),
    ("http://app.test", "app.test:0x50", "ws", "bad_host"),
    ("http://app.test", "app.test:65536", "ws", "bad_host"),
    ("http://app.test", "app.test/path", "ws", "bad_host"),
    ("http://app.test", "user@app.test", "ws", "bad_host"),
    ("http://app.test", "a" * 254, "ws", "bad_host"),
    ("http://app.test", "app.test, evil.test", "ws", "bad_host"),
    ("http://evil.test", "[....]", "ws", "bad_host"),
    ("http://evil.test", "[::::]", "ws", "bad_host"),
    ("http://evil.test", "[1.2]", "ws", "bad_host"),
    ("http://evil.test", "[1.2.3.4]:80", "ws", "bad_host"),
]


@pytest.mark.parametrize(("origin", "host", "scheme", "reason"), REFUSED)
def test_anything_else_is_refused_and_counted(origin: str | None, host: str, scheme: str, reason: str) -> None:
    worker = Worker()
    assert worker.refusal(origin=origin, host=host, scheme=scheme) == reason
    assert worker.counted(reason) == 1


@pytest.mark.parametrize(("name", "reason"), [(b"origin", "bad_origin"), (b"host", "bad_host")])
def test_header_given_twice_is_refused(name: bytes, reason: str) -> None:
    twice = scope()
    twice["headers"] += [header for header in twice["headers"] if header[0] == name]
    with pytest.raises(HandshakeRefused, match=reason):
        check(twice, Limits.load())


@pytest.mark.parametrize(
    ("allowed", "origin", "reason"),
    [
        ("https://one.test, https://Two.test:443", "https://two.test", None),
        ("https://one.test", "https://one.test:443", None),
        ("https://one.test", "http://one.test", "cross_origin"),
        ("https://one.test", "https://one.test:8443", "cross_origin"),
        ("https://one.test", "null", "cross_origin"),
        ("any-origin", "https://whoever.test", None),
        ("any-origin", "null", None),
        ("any-origin", None, "no_origin"),
    ],
)
def test_other_origins_may_be_allowed(
    monkeypatch: pytest.MonkeyPatch, allowed: str, origin: str | None, reason: str | None
) -> None:
    monkeypatch.setenv("FLET_ALLOWED_ORIGINS", allowed)
    assert Worker().refusal(origin=origin) == reason


@pytest.mark.parametrize(
    "value", ["*", "https://*.test", "https://one.test,*", "one.test", "https://one.test/app", "ftp://one.test", "null"]
)
def test_wrong_allow_list_stops_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLET_ALLOWED_ORIGINS", value)
    with pytest.raises(OptionError, match="FLET_ALLOWED_ORIGINS"):
        Limits.load()


def test_native_clients_are_let_in_if_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_ALLOW_NO_ORIGIN", "true")
    worker = Worker()
    assert worker.refusal(origin=None) is None
    assert worker.refusal(origin="http://evil.test") == "cross_origin"


@pytest.mark.parametrize(
    ("host", "reason"), [("app.test", None), ("APP.test:81", None), ("[::1]:81", None), ("other.test", "unknown_host")]
)
def test_hosts_may_be_named(monkeypatch: pytest.MonkeyPatch, host: str, reason: str | None) -> None:
    monkeypatch.setenv("FLET_ALLOWED_HOSTS", "App.test, [::1]")
    assert Worker().refusal(host=host, origin=f"http://{host}") == reason


def test_one_address_comes_at_a_pace() -> None:
    worker = Worker(handshakes_per_second=2, handshake_burst=3)
    assert [worker.refusal(client=PUBLIC) for _ in range(4)] == [None, None, None, "rate"]
    assert worker.refusal(client=OTHER) is None
    worker.now += 0.5
    assert [worker.refusal(client=PUBLIC) for _ in range(2)] == [None, "rate"]


def test_foreign_page_does_not_use_up_its_visitors_pace() -> None:
    worker = Worker(handshake_burst=1)
    assert [worker.refusal(client=PUBLIC, origin="http://evil.test") for _ in range(5)] == ["cross_origin"] * 5
    assert worker.refusal(client=PUBLIC) is None


def test_one_address_has_room_for_so_many() -> None:
    worker = Worker(max_connections_per_address=2)
    places = [worker.door.enter(scope(client=PUBLIC)) for _ in range(2)]
    assert worker.refusal(client=PUBLIC) == "address_connections"
    places[0].leave()
    places[0].leave()
    assert [worker.refusal(client=PUBLIC) for _ in range(2)] == [None, "address_connections"]


def test_one_browser_has_room_for_so_many_whatever_its_address() -> None:
    worker, browser = Worker(max_connections_per_browser=2), new_id()
    assert [worker.refusal(client=address, browser=browser) for address in (PUBLIC, OTHER)] == [None, None]
    assert worker.refusal(client=PUBLIC, browser=browser) == "browser_connections"
    assert worker.refusal(client=PUBLIC, browser=new_id()) is None
    assert len(worker.door.addresses) == 2


def test_full_worker_lets_nobody_in() -> None:
    worker = Worker()
    assert (worker.refusal(full=True), worker.counted("unregistered")) == ("unregistered", 1)


def test_nothing_is_remembered_of_those_that_have_left() -> None:
    worker = Worker()
    for place in [worker.door.enter(scope(client=PUBLIC, browser=new_id())) for _ in range(20)]:
        place.leave()
    assert (len(worker.door.addresses), len(worker.door.browsers)) == (0, 0)


ADDRESSES = [
    (PUBLIC, "9.9.9.9"),
    ("::ffff:9.9.9.9", "9.9.9.9"),
    ("2a00:1450:4001:81b::200e", "2a0014504001081b"),
    ("2a00:1450:4001:81b:ffff::1", "2a0014504001081b"),
    ("64:ff9b::9.9.9.9", "9.9.9.9"),
    ("64:ff9b::10.1.2.3", None),
    ("2002:909:909:1::5", "9.9.9.9"),
    ("127.0.0.1", None),
    ("10.1.2.3", None),
    ("172.17.0.1", None),
    ("::1", None),
    ("fe80::1%eth0", None),
    ("fd00::1", None),
    ("", None),
    ("unix:", None),
    ("testclient", None),
]


@pytest.mark.parametrize(("address", "key"), ADDRESSES)
def test_address_counts_by_its_network(address: str, key: str | None) -> None:
    assert address_of({"client": (address, 0)}) == key


@pytest.mark.parametrize("client", [None, []])
def test_unknown_address_has_no_limits(client: Any) -> None:
    assert address_of({"client": client}, private=True) is None


def test_private_addresses_count_if_that_is_set() -> None:
    worker = Worker(limit_private_addresses=True)
    assert [worker.refusal(client="10.1.2.3") for _ in range(1001)][999:] == [None, "rate"]
    assert worker.refusal(client="10.1.2.4") is None


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_connections_per_address": 1}, "address_connections"),
        ({"handshake_burst": 1}, "rate"),
        ({"handshakes_per_second": 1, "handshake_burst": 1}, "rate"),
    ],
)
def test_who_sets_a_limit_means_private_addresses_too(limit: dict[str, int], reason: str) -> None:
    worker = Worker(**limit)
    assert [worker.refusal(client="127.0.0.1") for _ in range(2)] == [None, reason]
    worker = Worker(limit_private_addresses=False, **limit)
    assert [worker.refusal(client="127.0.0.1") for _ in range(2)] == [None, None]


def test_paces_of_a_bounded_number_are_remembered() -> None:
    paces = Paces(1, 1, lambda: 0.0, max_keys=10)
    assert all(paces.take(str(number)) for number in range(100))
    assert len(paces) == 10
    assert not paces.take("99")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=60))
def test_nobody_comes_faster_than_the_pace(steps: list[tuple[str, float]]) -> None:
    now, came = 0.0, {"a": [0.0] * 0, "b": [], "c": []}
    paces = Paces(2, 4, lambda: now)
    for key, pause in steps:
        now += pause
        if paces.take(key):
            came[key].append(now)
    for times in came.values():
        for first, start in enumerate(times):
            for count, end in enumerate(times[first:], 1):
                assert count <= 4 + 2 * (end - start) + 1e-6


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
def test_room_is_never_overbooked(steps: list[tuple[bool, str]]) -> None:
    room, taken = Room(2), {"a": 0, "b": 0, "c": 0}
    for comes, key in steps:
        if comes:
            assert room.take(key) == (taken[key] < 2)
            taken[key] = min(taken[key] + 1, 2)
        elif taken[key]:
            room.leave(key)
            taken[key] -= 1
    assert len(room) == sum(count > 0 for count in taken.values())


HEADER = st.binary(max_size=300) | st.sampled_from(
    [
        b"http://app.test",
        b"app.test",
        b"null",
        b"https://[",
        b"http://[::1",
        b"http://a:b",
        b"[::1]:",
        b":80",
        b"\xff",
        b"[....]",
        b"[::::]",
        b"[1.2]",
        b"http://evil.test",
    ]
)
# what looks like a host, with an Origin that is one: what lies behind the checks of each
LIKELY = st.tuples(
    st.from_regex(r"\A(\[[0-9a-f:.]{2,45}\]|[a-z0-9.~_-]{1,20})(:[0-9]{1,5})?\Z").map(str.encode),
    st.sampled_from([b"http://evil.test", b"https://[::1]:1"]),
).map(lambda both: [(b"host", both[0]), (b"origin", both[1])])
HEADERS = LIKELY | st.lists(
    st.tuples(st.sampled_from([b"host", b"origin", b"cookie", b"x-forwarded-for"]), HEADER), max_size=6
)
CLIENT = st.none() | st.tuples(st.text(max_size=60) | st.ip_addresses().map(str), st.integers())


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(allowed_origins=("https://one.test",))


@given(headers=HEADERS, scheme=st.sampled_from(["ws", "wss", "http", "", None]), client=CLIENT)
def test_any_handshake_is_admitted_or_refused(worker: Worker, headers: Any, scheme: str | None, client: Any) -> None:
    with suppress(HandshakeRefused):
        worker.door.enter({"headers": headers, "scheme": scheme, "client": client}).leave()
    assert (len(worker.door.addresses), len(worker.door.browsers)) == (0, 0)


@pytest.mark.parametrize(("reason", "status"), REASONS.items())
async def test_answer_is_short_and_kept_by_nobody(reason: str, status: int) -> None:
    sent: list[Any] = []
    await HandshakeRefused(reason).answer({"extensions": {"websocket.http.response": {}}}, _into(sent))
    start, body = sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    headers = dict(start["headers"])
    assert int(headers[b"content-length"]) == len(body["body"]) < 100
    assert (headers[b"cache-control"], headers[b"x-content-type-options"]) == (b"no-store", b"nosniff")
    assert (b"retry-after" in headers) == (status in (429, 503))


@pytest.mark.parametrize(("reason", "code"), [("cross_origin", 1008), ("rate", 1013), ("unregistered", 1013)])
async def test_server_without_the_extension_closes(reason: str, code: int) -> None:
    sent: list[Any] = []
    await HandshakeRefused(reason).answer({}, _into(sent))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", code)]


async def test_client_that_has_left_is_not_an_error() -> None:
    async def broken(_: Any) -> None:
        raise OSError

    await HandshakeRefused("rate").answer({}, broken)


def test_log_says_once_a_minute_what_may_be_set_wrong(logs: Logs) -> None:
    worker = Worker()
    for _ in range(50):
        worker.refusal(origin="https://app.test")
    worker.now += 61
    worker.refusal(origin="https://" + "x" * 500)
    first, second = logs.fields("handshake_refused")
    assert (first["reason"], second["reason"]) == ("cross_origin", "bad_origin")
    assert "FLET_ALLOWED_ORIGINS" in first["hint"]
    assert len(second["origin"]) == 200


def _into(sent: list[Any]) -> Any:
    async def send(message: Any) -> None:
        sent.append(message)

    return send
