"""A browser stays with its worker; who has none is spread; what a dead worker had goes to the others."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import os
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.proxy.conftest import PROGRAMS
from tests.support import appliance as support
from tests.support.appliance import Appliance
from tests.support.classic_client import ClassicClient
from tests.support.nginx import (
    Nginx,
    Upstreams,
    fetch,
    nginx_folder,
    nginx_server,
    trusting,
    wait_for,
)

# the same in every run, as tests are named by them
BROWSERS = [
    base64.urlsafe_b64encode(hashlib.sha256(b"%d" % number).digest()[:16])[:22].decode() for number in range(400)
]


def asked(nginx: Nginx, cookies: Iterable[str], *, tls: bool = True) -> list[str]:
    """The workers that requests with these cookies come to, by address; one connection carries all of them."""
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", nginx.https_port, timeout=30, context=trusting())
    else:
        connection = http.client.HTTPConnection("127.0.0.1", nginx.http_port, timeout=30)
    found = []
    with closing(connection):
        for cookie in cookies:
            connection.request("GET", "/", headers={"Cookie": cookie} if cookie else {})
            found.append(connection.getresponse().read().decode())
    return found


def owners(nginx: Nginx) -> dict[str, str]:
    return dict(zip(BROWSERS, asked(nginx, [f"__Host-flet_browser={value}" for value in BROWSERS]), strict=True))


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    """Eight small servers that say who they are, of which nginx is told by and by."""
    with Upstreams(8) as upstreams:
        yield upstreams


@pytest.fixture
def spread(upstreams: Upstreams) -> Iterator[Nginx]:
    upstreams.shown = upstreams.addresses[:4]
    variables = {"APP_HOST": "127.0.0.1", "ROOST_INTERNAL_PORT": str(upstreams.internal_port)}
    with nginx_folder() as folder, nginx_server(folder, **variables) as nginx:
        wait_for(lambda: fetch(nginx.url).status == 200, "the workers are known")
        yield nginx


def test_a_browser_stays_and_all_are_spread(spread: Nginx, upstreams: Upstreams) -> None:
    first = owners(spread)
    counts = Counter(first.values())

    assert owners(spread) == first
    assert counts.keys() == set(upstreams.shown)
    assert min(counts.values()) > len(BROWSERS) / 4 / 2


def test_who_has_no_cookie_is_spread(spread: Nginx, upstreams: Upstreams) -> None:
    counts = Counter(asked(spread, [""] * 200))
    assert counts.keys() == set(upstreams.shown) and min(counts.values()) > 20


def test_adding_workers_moves_few(spread: Nginx, upstreams: Upstreams) -> None:
    before, old = owners(spread), set(spread.processes("worker"))
    upstreams.shown = upstreams.addresses[:5]
    wait_for(lambda: (now := spread.processes("worker")) and old.isdisjoint(now), "nginx has reloaded")
    after = owners(spread)

    moved = [value for value in BROWSERS if before[value] != after[value]]
    print(f"moved when a fifth worker came: {len(moved) / len(BROWSERS):.0%}")
    assert {after[value] for value in moved} == {upstreams.addresses[4]}
    assert len(moved) < len(BROWSERS) * 0.35


def test_what_a_dead_worker_had_goes_to_all_others_and_comes_back(spread: Nginx, upstreams: Upstreams) -> None:
    before = owners(spread)
    dead = upstreams.addresses[2]
    upstreams.stop(dead)
    during = owners(spread)
    upstreams.start(dead)

    assert dead not in during.values()
    assert all(during[value] == before[value] for value in BROWSERS if before[value] != dead)
    assert len({during[value] for value in BROWSERS if before[value] == dead}) == 3
    assert owners(spread) == before


def test_no_worker_is_asked_while_all_are_gone_and_all_are_at_once_when_they_are_back(
    spread: Nginx, upstreams: Upstreams
) -> None:
    before = owners(spread)
    for address in upstreams.shown:
        upstreams.stop(address)
    assert {fetch(spread.url).status for _ in range(20)} == {502}
    for address in upstreams.shown:
        upstreams.start(address)
    assert owners(spread) == before


GOOD, OTHER = BROWSERS[0], next(iter(BROWSERS[1:]))
# A Cookie header, and whose it is: that of the first cookie of the name, as the app reads it, or nobody's.
COOKIES = [
    (f"__Host-flet_browser={GOOD}", True),
    (f"a=b; __Host-flet_browser={GOOD}; c=d", True),
    (f"a=b;__Host-flet_browser={GOOD};c=d", True),
    (f"  __Host-flet_browser = {GOOD} ;c", True),
    (f"__Host-flet_browser={GOOD}; __Host-flet_browser={OTHER}", True),
    (f"x__Host-flet_browser={OTHER}; __Host-flet_browser={GOOD}", True),
    (f"flet_browser={OTHER}; __Host-flet_browser={GOOD}", True),
    (f"a=__Host-flet_browser={OTHER}; __Host-flet_browser={GOOD}", True),
    (f"{'a=b; ' * 500}__Host-flet_browser={GOOD}", True),
    (f"__Host-flet_browser=bad; __Host-flet_browser={GOOD}", False),
    (f"__Host-flet_browser={GOOD}x", False),
    (f"__Host-flet_browser={GOOD[1:]}", False),
    (f'__Host-flet_browser="{GOOD}"', False),
    (f"__host-flet_browser={GOOD}", False),
    (f"flet_browser={GOOD}", False),
    (f"x__Host-flet_browser={GOOD}", False),
    (f"a=b, __Host-flet_browser={GOOD}", False),
    ("__Host-flet_browser=", False),
    ("", False),
]


@pytest.mark.parametrize(("cookie", "counts"), COOKIES, ids=range(len(COOKIES)))
def test_the_cookie_is_read_as_the_app_reads_it(spread: Nginx, cookie: str, counts: bool) -> None:
    found = set(asked(spread, [cookie] * 24))
    rightful = set(asked(spread, [f"__Host-flet_browser={GOOD}"]))
    assert (found == rightful) if counts else len(found) > 1


def test_without_tls_the_other_cookie_counts(upstreams: Upstreams) -> None:
    upstreams.shown = upstreams.addresses[:4]
    variables = {"APP_HOST": "127.0.0.1", "ROOST_INTERNAL_PORT": str(upstreams.internal_port), "NGINX_TLS": "off"}
    with nginx_folder() as folder, nginx_server(folder, **variables) as nginx:
        wait_for(lambda: fetch(nginx.plain_url).status == 200, "the workers are known")
        plain = set(asked(nginx, [f"flet_browser={GOOD}"] * 24, tls=False))
        secure = set(asked(nginx, [f"__Host-flet_browser={GOOD}"] * 24, tls=False))
    assert len(plain) == 1 < len(secure)


def test_the_last_workers_count_on_while_nobody_says_anything_else(spread: Nginx, upstreams: Upstreams) -> None:
    rounds, workers = upstreams.rounds, spread.processes("worker")
    upstreams.answers = False
    wait_for(lambda: upstreams.rounds > rounds + 5, "nginx asks in vain")
    assert fetch(spread.url).status == 200
    upstreams.answers = True
    assert spread.processes("worker") == workers


@pytest.mark.parametrize("said", ["", "nonsense\n", "80; }\n99999\n-1\n8 1\n", "<html>\n" * 1000], ids=range(4))
def test_what_is_no_port_is_no_worker(spread: Nginx, upstreams: Upstreams, said: str) -> None:
    upstreams.said = said
    page = wait_for(lambda: (found := fetch(spread.url, Accept="text/html")).status != 200 and found, "nobody is left")
    upstreams.said = None

    assert b"One moment" in page.body
    wait_for(lambda: fetch(spread.url).status == 200, "they are known again")


def test_nothing_is_reloaded_while_nothing_changes(spread: Nginx, upstreams: Upstreams) -> None:
    workers, rounds = spread.processes("worker"), upstreams.rounds
    upstreams.said = "".join(f"{address.rpartition(':')[2]}\n" for address in reversed(upstreams.shown))
    wait_for(lambda: upstreams.rounds > rounds + 3, "nginx asks again")
    upstreams.said = None
    assert spread.processes("worker") == workers


def test_the_token_is_sent_and_seen_by_nobody(upstreams: Upstreams, tmp_path: Path) -> None:
    upstreams.shown, upstreams.token = upstreams.addresses[:1], "a-token-of-24-characters"
    with ExitStack() as stack:
        folder = stack.enter_context(nginx_folder())
        (folder / "token").write_text(upstreams.token + "\n")
        variables = {"ROOST_INTERNAL_TOKEN_FILE": f"{folder}/token", "APP_HOST": "127.0.0.1"}
        variables["ROOST_INTERNAL_PORT"] = str(upstreams.internal_port)
        nginx = stack.enter_context(nginx_server(folder, **variables))
        wait_for(lambda: fetch(nginx.url).status == 200, "the token was right")
        stored = b"".join(file.read_bytes() for file in (folder / "run").rglob("*") if file.is_file())
        assert upstreams.token.encode() not in stored + nginx.output.encode()
    upstreams.token = ""


def test_a_request_that_may_have_done_something_is_not_made_twice(start_two: Nginx) -> None:
    assert fetch(f"{start_two.url}/die", method="POST", body=b"x").status == 502
    (line,) = start_two.logged(path="/die")
    assert "," not in line["upstream"]


# --- real workers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with support.appliance(tmp_path_factory.mktemp("appliance"), PROGRAMS / "visits.py", workers=3) as appliance:
        yield appliance


def new_browser(front: Nginx) -> dict[str, str]:
    found = re.match(r"__Host-flet_browser=([\w-]{22});", fetch(front.url).header("Set-Cookie") or "")
    assert found is not None
    return {"__Host-flet_browser": found[1]}


async def visit(front: Nginx, cookies: dict[str, str], session: str = "") -> tuple[str, str]:
    """The worker that shows the page, and what the browser keeps of its session."""
    async with ClassicClient(front.websocket_url, cookies=cookies) as client:
        client.session_id = session
        await client.register()
        await client.wait_for(lambda client: client.all("elevatedbutton"))
        (pid,) = [text["value"] for text in client.all("text") if text.get("key", "").endswith("pid")]
        return pid, client.session_id


async def test_reconnects_find_their_session_and_a_killed_worker_its_place(front: Nginx, appliance: Appliance) -> None:
    browsers = [new_browser(front) for _ in range(12)]
    first = [await visit(front, cookies) for cookies in browsers]
    again = [await visit(front, cookies, session) for cookies, (_, session) in zip(browsers, first, strict=True)]
    assert [pid for pid, _ in again] == [pid for pid, _ in first]
    assert len({pid for pid, _ in first}) > 1

    victim = int(first[0][0])
    os.kill(victim, signal.SIGKILL)
    during = [await visit(front, cookies, session) for cookies, (_, session) in zip(browsers, first, strict=True)]
    stayed = [(before[0], after[0]) for before, after in zip(first, during, strict=True) if before[0] != str(victim)]
    assert all(before == after for before, after in stayed)

    # in the same slot there is a worker again, and the browsers that were there come to it
    await asyncio.to_thread(appliance.until, lambda: victim not in appliance.workers_now().values())
    after = [await visit(front, cookies) for cookies in browsers]
    successors = {now[0] for before, now in zip(first, after, strict=True) if before[0] == str(victim)}
    assert len(successors) == 1 and successors.isdisjoint({pid for pid, _ in first})


@pytest.fixture
def start_two(tmp_path: Path) -> Iterator[Nginx]:
    """nginx before two workers that a request can kill."""
    with ExitStack() as stack:
        slots = stack.enter_context(support.appliance(tmp_path, PROGRAMS / "echo.py")).slot_port
        folder = stack.enter_context(nginx_folder())
        servers = f"127.0.0.1:{slots} 127.0.0.1:{slots + 1}"
        yield stack.enter_context(nginx_server(folder, APP_SERVERS=servers))
