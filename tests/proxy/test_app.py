"""A real app, on real workers, through real TLS."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.proxy.conftest import PROGRAMS
from tests.support import appliance as support
from tests.support.appliance import Appliance
from tests.support.classic_client import ClassicClient
from tests.support.nginx import (
    Nginx,
    async_wait_for,
    fetch,
    resident,
    trusting,
)

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory, uploads: Path) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("appliance")
    with support.appliance(folder, PROGRAMS / "visits.py", FLET_UPLOAD_DIR=uploads) as appliance:
        yield appliance


def shown(client: ClassicClient, key: str) -> str:
    (text,) = [control for control in client.all("text") if control.get("key", "").endswith(key)]
    return str(text.get("value", ""))


async def click(client: ClassicClient, text: str) -> None:
    await client.click(client.one("elevatedbutton", text=text)["i"])


def test_the_page_comes_over_tls_with_the_browsers_cookie(front: Nginx) -> None:
    page = fetch(front.url)

    assert (page.status, page.header("Content-Type")) == (200, "text/html; charset=utf-8")
    assert re.match(r"__Host-flet_browser=[\w-]{22};.*; Secure$", page.header("Set-Cookie") or "")
    assert page.header("Cache-Control") == "no-cache, private"


def test_a_page_is_anew_for_everyone(front: Nginx) -> None:
    cookies = {fetch(front.url).header("Set-Cookie") for _ in range(5)}
    assert len(cookies) == 5


def test_a_page_that_has_not_changed_is_not_sent_again(front: Nginx) -> None:
    page = fetch(front.url)
    assert fetch(front.url, If_None_Match=page.header("ETag") or "").status == 304


def build_files(front: Nginx) -> list[str]:
    """The largest files of the client, as its page names them."""
    build = re.search(rb"/?(_b/[0-9a-f]{16}/)", fetch(front.url).body)
    assert build is not None
    return [f"/{build[1].decode()}{name}" for name in ("main.dart.js", "canvaskit/canvaskit.wasm", "flutter.js")]


@pytest.mark.parametrize("coding", ["br", "gzip", "identity"])
def test_python_sees_each_file_of_the_client_once(front: Nginx, appliance: Appliance, coding: str) -> None:
    files = build_files(front)
    sizes = []
    for _ in range(3):
        answers = [fetch(front.url + file, Accept_Encoding=coding) for file in files]
        assert {answer.status for answer in answers} == {200}
        assert {answer.header("Content-Encoding") for answer in answers[:2]} == {
            None if coding == "identity" else coding
        }
        sizes.append(sum(len(answer.body) for answer in answers))

    assert len(set(sizes)) == 1 and sizes[0] > (10 if coding == "identity" else 2) * MEGABYTE
    asked = {"br": 1, "gzip": 2, "identity": 3}[coding]  # each coding once, in the order of these tests
    seen = [sum(line.get("path") == file for line in appliance.logged("request")) for file in files]
    assert max(seen) <= asked and sum(seen) > 0


async def test_a_click_goes_through_tls_and_back(front: Nginx) -> None:
    async with ClassicClient(front.websocket_url) as client:
        await client.register()
        await client.wait_for(lambda client: client.all("elevatedbutton"))
        await click(client, "Add")
        await client.wait_for(lambda client: shown(client, "count") == "1")

        assert shown(client, "client") == "127.0.0.1"
        assert client.cookies.keys() == {"__Host-flet_browser"}
    (line,) = await asyncio.to_thread(front.logged, path="/ws", status=101)
    assert line["seconds"] > 0


async def test_a_page_of_another_site_gets_no_websocket(front: Nginx) -> None:
    with pytest.raises(Exception, match="403"):
        await ClassicClient(front.websocket_url, origin="https://evil.test").connect()


async def test_a_reload_of_nginx_leaves_an_open_websocket_alone(front: Nginx) -> None:
    async with ClassicClient(front.websocket_url) as client:
        await client.register()
        await client.wait_for(lambda client: client.all("elevatedbutton"))
        before = set(front.processes("worker"))
        os.kill(front.process.pid, 1)
        await async_wait_for(lambda: set(front.processes("worker")) - before, "nginx has new workers")
        # the ones before go on for the sake of the websocket alone
        await async_wait_for(lambda: fetch(front.url).status == 200, "the new ones answer")
        await click(client, "Add")
        await client.wait_for(lambda client: shown(client, "count") == "1")
        await async_wait_for(lambda: len(before.intersection(front.processes("worker"))) == 1, "one of them is left")
    await async_wait_for(lambda: before.isdisjoint(front.processes("worker")), "it ends with the websocket")


class Upload:
    """A PUT whose body is sent piece by piece."""

    def __init__(self, front: Nginx, link: str, size: int) -> None:
        parts = urlsplit(link)
        self.connection = http.client.HTTPSConnection("127.0.0.1", front.https_port, timeout=60, context=trusting())
        self.connection.putrequest("PUT", f"{parts.path}?{parts.query}")
        self.connection.putheader("Content-Length", str(size))
        self.connection.endheaders()

    def send(self, size: int) -> None:
        piece = b"\0" * (256 * 1024)
        for _ in range(size // len(piece)):
            self.connection.send(piece)

    def finish(self) -> int:
        status = self.connection.getresponse().status
        self.connection.close()
        return status


async def upload_link(front: Nginx) -> str:
    async with ClassicClient(front.websocket_url) as client:
        await client.register()
        await client.wait_for(lambda client: client.all("elevatedbutton"))
        await click(client, "Upload")
        await client.wait_for(lambda client: shown(client, "link"))
        return shown(client, "link")


async def memory_of_upload(front: Nginx, appliance: Appliance, size: int) -> dict[str, int]:
    """The most memory that either held while a file of this size went through."""
    upload = Upload(front, await upload_link(front), size)
    peaks = {"nginx": 0, "app": 0}
    for _ in range(16):
        await asyncio.to_thread(upload.send, size // 16)
        peaks["nginx"] = max(peaks["nginx"], front.memory())
        peaks["app"] = max(peaks["app"], sum(resident(pid) for pid in appliance.workers_now().values()))
    assert await asyncio.to_thread(upload.finish) in (201, 204)
    return peaks


async def test_a_large_upload_takes_no_more_memory_than_a_small_one(
    front: Nginx, appliance: Appliance, uploads: Path
) -> None:
    small = await memory_of_upload(front, appliance, 4 * MEGABYTE)
    large = await memory_of_upload(front, appliance, 200 * MEGABYTE)
    print("memory of an upload of 4 MB, of 200 MB:", small, large)

    assert (uploads / "big.bin").stat().st_size == 200 * MEGABYTE
    assert large["nginx"] - small["nginx"] < 4 * MEGABYTE
    assert large["app"] - small["app"] < 16 * MEGABYTE
    spooled = [file for file in (front.folder / "cache/body").rglob("*") if file.is_file()]
    assert spooled == []


async def test_the_app_sees_the_first_byte_before_the_last_is_sent(front: Nginx, uploads: Path) -> None:
    upload = Upload(front, await upload_link(front), 8 * MEGABYTE)
    await asyncio.to_thread(upload.send, 4 * MEGABYTE)
    await async_wait_for(
        lambda: any(file.stat().st_blocks for file in uploads.iterdir() if file.name != "big.bin"), "a file grows"
    )
    await asyncio.to_thread(upload.send, 4 * MEGABYTE)
    assert await asyncio.to_thread(upload.finish) == 204


def test_neither_logs_what_is_secret(front: Nginx, appliance: Appliance) -> None:
    said = front.output + appliance.out.read_text() + appliance.err.read_text()
    for secret in ("__Host-flet_browser=", "s=", "?f=", "big.bin?"):
        assert secret not in said
