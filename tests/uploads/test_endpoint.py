"""A table of all answers, and what is left after each."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from fastapi import FastAPI, Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flet_fastapi.client.assets import Assets
from flet_fastapi.identity import Keyring
from flet_fastapi.uploads import FletUpload, UploadRefused, upload_url
from flet_fastapi.uploads.refusal import _STATUS
from flet_fastapi.uploads.worker import Uploads
from tests.conftest import Logs
from tests.support.upload_door import Answer, Body, Door

MakeDoor = Callable[..., Door]


async def test_new_file_is_created(door: Door) -> None:
    answer = await door.put(await door.url("a/b/Grüße 🎉.txt"), b"hello")
    assert (answer.status, answer.body) == (201, b"")
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert door.files() == {"a": b"", "a/b": b"", "a/b/Grüße 🎉.txt": b"hello"}


async def test_absolute_name_means_below_the_upload_directory(door: Door) -> None:
    await door.put(await door.url("/user/pictures/f.png"), b"png")
    assert door.files()["user/pictures/f.png"] == b"png"


async def test_older_file_is_replaced(door: Door) -> None:
    (door.directory / "f.bin").write_bytes(b"a longer old file")
    answer = await door.put(await door.url(), b"new")
    assert (answer.status, door.files()) == (204, {"f.bin": b"new"})


async def test_empty_file_arrives(door: Door) -> None:
    answer = await door.put(await door.url(), b"")
    assert (answer.status, door.files()) == (201, {"f.bin": b""})


async def test_upload_directory_is_made(door: Door) -> None:
    door.directory.rmdir()
    answer = await door.put(await door.url(), b"x")
    assert answer.status == 201


SAME_URL = "the same URL"


@dataclass(frozen=True)
class Row:
    """How an upload is made in an app with these `options` and `limits`, and its answer.

    A `first` upload of another file, or at the same URL, has come to its end before; or it goes on `meanwhile`.
    `left` are the files that there are in the end; the connection is `cut` if the browser may have more to send.
    """

    status: int
    options: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    url: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    method: str = "PUT"
    headers: Sequence[tuple[str, str]] = (("content-length", "4"),)
    body: Callable[[], Body] = lambda: Body([b"four"])
    first: str = ""
    meanwhile: bool = False
    left: dict[str, bytes] = field(default_factory=dict)
    cut: bool = False


ONE = {"f.bin": b"x"}
# By the word in `error`; there is no other, and the first two are not words but successes.
ANSWERS = {
    "(new)": Row(201, left={"f.bin": b"four"}),
    "(replaced)": Row(204, url={"name": "f"}, first="f", left={"f": b"four"}),
    "bad_request": Row(400, headers=[("content-length", "x")]),
    "bad_name": Row(400, url={"name": "../f"}),
    "incomplete": Row(400, headers=[("content-length", "5")]),
    "no_signature": Row(401, path="/upload"),
    "bad_signature": Row(403, path="/upload?t=x"),
    "expired": Row(403, url={"expires_seconds": 0}),
    "uploads_off": Row(404, options={"upload_dir": None}),
    "method_not_allowed": Row(405, method="POST"),
    "too_slow": Row(
        408, limits={"upload_grace_seconds": 1}, url={"name": "a/f"}, body=lambda: Body([b"fo"], stalls=True), cut=True
    ),
    "already_used": Row(409, first=SAME_URL, left=ONE),
    "in_progress": Row(409, first=SAME_URL, meanwhile=True, left=ONE),
    "name_is_taken": Row(409, url={"name": "a"}, first="a/f", left={"a": b"", "a/f": b"x"}),
    "length_required": Row(411, headers=[]),
    "too_large": Row(413, url={"max_size": 3}),
    "unsupported_encoding": Row(415, headers=[("content-length", "4"), ("content-encoding", "gzip")]),
    "too_many_uploads": Row(
        429, limits={"max_concurrent_uploads": 1}, url={"session_key": "another"}, first="f.bin", meanwhile=True,
        left=ONE,
    ),
    "session_uploads": Row(
        429, limits={"max_concurrent_uploads_per_session": 1}, first="f.bin", meanwhile=True, left=ONE
    ),
    "session_files": Row(429, limits={"max_uploads_per_session": 1}, first="f.bin", left=ONE),
    "session_bytes": Row(429, limits={"max_upload_bytes_per_session": 4}, first="f.bin", left=ONE),
    "client_gone": Row(499, url={"name": "a/f"}, body=lambda: Body([b"fo"], leaves=True), cut=True),
    "unavailable": Row(503, limits={"cluster_url": "sqlite:///dev/null/missing/keys.sqlite3"}),
    "no_space": Row(507, limits={"upload_min_free": 10**18}, url={"name": "a/f"}),
    "quota": Row(507, limits={"upload_dir_quota": 3}),
    "storage": Row(507, options={"upload_dir": "/proc/uploads"}),  # where nobody can make a folder
}  # fmt: skip


def test_every_answer_that_there_is_stands_in_the_table() -> None:
    assert {word: row.status for word, row in ANSWERS.items() if row.status >= 400} == _STATUS


@pytest.mark.parametrize("word", ANSWERS)
async def test_answer_says_how_the_upload_went(make_door: MakeDoor, word: str, logs: Logs) -> None:
    row = ANSWERS[word]
    door = make_door(row.options, **row.limits)
    answer = await ask(door, row)
    assert (answer.status, door.files()) == (row.status, row.left)
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")
    assert ("connection" in answer.headers) == row.cut
    check_body(answer, word)
    assert door.server.counted("flet_uploads_total", status=str(row.status)) == 1
    assert door.server.counted("flet_upload_refusals_total", error=word) == (row.status >= 400)
    assert door.server.counted("flet_uploads_started_total") == answered(door)
    assert "Traceback" not in logs.text


def answered(door: Door) -> float:
    """Uploads that have an end."""
    samples = [sample for family in door.server.metrics.uploads.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


async def test_upload_that_fails_in_the_server_has_an_end(make_door: MakeDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("a mistake")

    door = make_door()
    monkeypatch.setattr(FletUpload, "_read_grant", broken)
    with pytest.raises(RuntimeError):
        await door.put("/upload?t=x", b"")
    assert door.server.counted("flet_uploads_started_total") == 1
    assert door.server.counted("flet_uploads_total", status="500") == 1


async def ask(door: Door, row: Row) -> Answer:
    url = row.path or await door.url(**row.url)
    answers: list[Answer] = []

    async def upload() -> None:
        answers.append(await door.put(url, row.body(), row.headers, method=row.method))

    if row.first:
        first = url if row.first == SAME_URL else await door.url(row.first)
        body = Body([b"x"], before={0: upload} if row.meanwhile else {})
        assert (await door.put(first, body, [("content-length", "1")])).status == 201
    if not row.meanwhile:
        await upload()
    return answers[0]


def check_body(answer: Answer, word: str) -> None:
    if answer.status < 300:
        assert answer.body == b""
        return
    said = orjson.loads(answer.body)
    assert (answer.headers["content-type"], said.keys()) == ("application/json", {"error", "detail"})
    assert said["error"] == word
    assert re.fullmatch(r"[A-Z][^\n]{10,80}\.", said["detail"])


@pytest.mark.parametrize(
    "word", ["bad_request", "incomplete", "method_not_allowed", "too_slow", "length_required", "unsupported_encoding",
             "client_gone"],
)  # fmt: skip
async def test_url_works_after_a_request_that_was_wrong(make_door: MakeDoor, word: str) -> None:
    row = ANSWERS[word]
    door = make_door(**row.limits)
    url = await door.url()
    assert (await door.put(url, row.body(), row.headers, method=row.method)).error == word
    assert (await door.put(url, b"four")).status == 201


HEADERS: list[tuple[list[tuple[str, str]], str]] = [
    ([("content-length", "-1")], "bad_request"),
    ([("content-length", "4x")], "bad_request"),
    ([("content-length", "4, 5")], "bad_request"),
    ([("content-length", "\xb2")], "bad_request"),
    ([("content-length", "4"), ("content-length", "5")], "bad_request"),
    ([("content-length", "9" * 5000)], "too_large"),
    ([("content-length", "4"), ("transfer-encoding", "chunked")], "length_required"),
    ([("content-length", "4"), ("content-range", "bytes 0-3/4")], "bad_request"),
    ([("content-length", "4"), ("content-type", "multipart/form-data; boundary=x")], "unsupported_encoding"),
    ([("content-length", "4"), ("content-encoding", "identity"), ("content-encoding", "br")], "unsupported_encoding"),
    ([("content-length", "4"), ("content-type", "a/b"), ("content-type", "multipart/mixed")], "unsupported_encoding"),
    ([("content-length", "5")], "incomplete"),
    ([("content-length", "3")], "bad_request"),
]


@pytest.mark.parametrize(("headers", "error"), HEADERS, ids=range(len(HEADERS)))
async def test_header_that_is_not_an_uploads_is_refused(door: Door, headers: Any, error: str) -> None:
    answer = await door.put(await door.url(), Body([b"four"]), headers)
    assert (answer.error, door.files()) == (error, {})


async def test_url_of_another_endpoint_gets_403(door: Door) -> None:
    elsewhere = await door.url(path="/other/upload")
    answer = await door.put(elsewhere.removeprefix("/other"), b"x")
    assert (answer.status, answer.error) == (403, "bad_signature")


async def test_size_limit_of_the_endpoint_counts_too(make_door: MakeDoor) -> None:
    door = make_door({"max_upload_size": 3})
    assert [(await door.put(await door.url(), b"x" * size)).status for size in (3, 4)] == [201, 413]


async def test_directory_quota_counts_all_files(make_door: MakeDoor) -> None:
    door = make_door(upload_dir_quota=10)
    (door.directory / "sub").mkdir()
    (door.directory / "sub/old").write_bytes(b"123456")
    answers = [await door.put(await door.url(name), b"123") for name in ("a", "b/c")]
    assert [(answer.status, answer.error) for answer in answers] == [(201, None), (507, "quota")]
    assert set(door.files()) == {"sub", "sub/old", "a"}


async def test_uploads_in_progress_count_in_full_against_the_quota(make_door: MakeDoor) -> None:
    door = make_door(upload_dir_quota=10)
    second: list[Any] = []

    async def upload_another() -> None:
        second.append(await door.put(await door.url("b"), b"1234"))

    body = Body([b"12", b"345678"], before={1: upload_another})
    first = await door.put(await door.url("a"), body, [("content-length", "8")])
    assert (first.status, second[0].error, door.files()) == (201, "quota", {"a": b"12345678"})


async def test_read_only_directory_gets_507(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(*_: Any, **__: Any) -> int:
        raise OSError(30, "Read-only file system")  # as root, modes do not stop us

    url = await door.url("f")
    with monkeypatch.context() as patch:
        patch.setattr("flet_fastapi.uploads.directory._locked_file", read_only)
        answer = await door.put(url, b"x")
    assert (answer.status, answer.error, vars(caplog.records[0])["fields"]["error"]) == (507, "storage", "EROFS")
    assert (await door.put(url, b"x")).status == 201


# --- once ------------------------------------------------------------------------------------------------------------


async def test_of_two_uploads_to_one_url_exactly_one_wins(make_door: MakeDoor) -> None:
    doors = [make_door(), make_door()]
    url = await doors[0].url()
    answers = await asyncio.gather(*(door.put(url, b"%d" % i) for i, door in enumerate(doors * 5)))
    won = [i for i, answer in enumerate(answers) if answer.status == 201]
    assert len(won) == 1
    assert {answer.status for answer in answers} == {201, 409}
    assert doors[0].files() == {"f.bin": b"%d" % won[0]}


async def test_url_works_again_after_a_broken_transfer(door: Door) -> None:
    (door.directory / "f.bin").write_bytes(b"old")
    url = await door.url()
    broken = await door.put(url, Body([b"ab"], leaves=True), [("content-length", "4")])
    assert (broken.status, door.files()) == (499, {"f.bin": b"old"})
    assert (await door.put(url, b"abcd")).status == 204


async def test_url_is_taken_while_its_upload_goes_on(door: Door) -> None:
    url = await door.url()
    reached = asyncio.Event()

    async def stop() -> None:
        reached.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(door.put(url, Body([b"ab"], before={1: stop}), [("content-length", "4")]))
    await reached.wait()
    assert (await door.put(url, b"abcd")).error == "in_progress"
    upload.cancel()
    await asyncio.wait([upload])


async def test_upload_that_lost_its_claim_changes_nothing(door: Door) -> None:
    url = await door.url()

    async def lose_and_upload() -> None:
        for (key,) in await asyncio.to_thread(_keys, door):
            await door.server.cluster.delete(key)
        assert (await door.put(url, b"second")).status == 201

    body = Body([b"fi", b"rst"], before={1: lose_and_upload})
    answer = await door.put(url, body, [("content-length", "5")])
    assert (answer.error, door.files()) == ("in_progress", {"f.bin": b"second"})
    assert (await door.put(url, b"third")).error == "already_used"


def _keys(door: Door) -> list[tuple[str]]:
    with sqlite3.connect(door.server.cluster.path) as db:  # type: ignore[attr-defined]
        return db.execute("SELECT key FROM keys WHERE key LIKE 'upload:%'").fetchall()


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_more_uploads_at_once_than_allowed_wait_their_turn(make_door: MakeDoor) -> None:
    door = make_door(max_concurrent_uploads=1)
    second: list[Any] = []

    async def upload_another() -> None:
        second.append(await door.put(await door.url("b"), b"b"))

    first = await door.put(await door.url("a"), Body([b"a"], before={0: upload_another}), [("content-length", "1")])
    assert (first.status, second[0].status, second[0].headers["retry-after"]) == (201, 429, "5")
    assert (await door.put(await door.url("b"), b"b")).status == 201
    assert door.server.counted("flet_uploads_active") == 0


async def test_session_leaves_places_to_others(make_door: MakeDoor) -> None:
    door = make_door(max_concurrent_uploads_per_session=1)
    others: list[Any] = []

    async def upload_others() -> None:
        urls = [await door.url("b"), await door.url("c", session_key="another")]
        others.extend([await door.put(url, b"x") for url in urls])

    await door.put(await door.url("a"), Body([b"a"], before={0: upload_others}), [("content-length", "1")])
    assert [answer.error for answer in others] == ["session_uploads", None]
    assert (await door.put(await door.url("b"), b"b")).status == 201


async def test_refused_browser_that_goes_on_sending_is_cut(door: Door) -> None:
    chunks = Body([b"x" * 1_000_000] * 100)
    answer = await door.put("/upload?t=x", chunks, [("content-length", "100000000")])
    assert (answer.status, answer.headers["connection"], chunks.sent) == (403, "close", 5)


async def test_refused_browser_that_has_sent_all_keeps_its_connection(door: Door) -> None:
    answer = await door.put("/upload?t=x", b"four")
    assert (answer.status, "connection" in answer.headers) == (403, False)


async def test_browser_that_waits_for_the_word_is_not_told_to_send(door: Door) -> None:
    body = Body([b"four"])
    answer = await door.put("/upload?t=x", body, [("content-length", "4"), ("expect", "100-continue")])
    assert (answer.headers["connection"], body.sent) == ("close", 0)


async def test_session_has_a_number_of_files(make_door: MakeDoor) -> None:
    doors = [make_door(max_uploads_per_session=2), make_door(max_uploads_per_session=2)]
    answers = [await door.put(await door.url(str(i)), b"x") for i, door in enumerate(doors * 2)]
    other = await doors[0].put(await doors[0].url(session_key="another"), b"x")
    assert [answer.error for answer in [*answers, other]] == [None, None, "session_files", "session_files", None]


async def test_session_has_a_number_of_bytes(make_door: MakeDoor) -> None:
    door = make_door(max_upload_bytes_per_session=10)
    answers = [await door.put(await door.url(str(i)), b"x" * size) for i, size in enumerate((8, 3, 2, 1))]
    assert [answer.error for answer in answers] == [None, "session_bytes", None, "session_bytes"]


async def test_failed_uploads_do_not_count_against_the_session(make_door: MakeDoor) -> None:
    door = make_door(max_uploads_per_session=1, max_upload_bytes_per_session=4)
    for _ in range(3):
        await door.put(await door.url(), Body([b"ab"], leaves=True), [("content-length", "4")])
    assert (await door.put(await door.url(), b"abcd")).status == 201


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_old_key_verifies_until_it_is_dropped(door: Door) -> None:
    urls = [await door.url("old"), await door.url("older")]
    door.server.keys = ["k2" * 16, "k1" * 16]
    rotated = await door.put(urls[0], b"x")
    newest = await door.url("new")
    door.server.keys = ["k2" * 16]
    answers = [rotated, await door.put(newest, b"x"), await door.put(urls[1], b"x")]
    assert [answer.error for answer in answers] == [None, None, "bad_signature"]


async def test_key_of_the_app_goes_before_the_shared_one(make_door: MakeDoor) -> None:
    door, other = make_door({"secret_key": "mine"}), make_door()
    assert (await other.put(await door.url(), b"x")).error == "bad_signature"
    assert (await door.put(await door.url(), b"x")).status == 201


# --- whatever a browser may send -------------------------------------------------------------------------------------

_ANYTHING = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)


@_ANYTHING
@given(query=st.text(max_size=300) | st.text("t=&%0aA._-", max_size=40).map(lambda tail: f"t={tail}"))
async def test_no_query_makes_a_server_error(door: Door, query: str) -> None:
    answer = await door.put(f"/upload?{quote(query, safe='=&%')}", b"x")
    assert answer.status in (400, 401, 403)


@_ANYTHING
@given(st.floats(0, 1, exclude_max=True), st.permutations("abcXYZ019-_.~"))
async def test_no_change_of_a_signed_url_is_taken(door: Door, place: float, characters: list[str]) -> None:
    url = await door.url()
    # the last character of base64 has bits without a meaning
    first, end = len("/upload?t="), len(url) - 1
    at = first + int(place * (end - first))
    other = next(character for character in characters if character != url[at])
    answer = await door.put(url[:at] + other + url[at + 1 :], b"x")
    assert answer.error == "bad_signature"


@_ANYTHING
@given(headers=st.lists(st.tuples(st.sampled_from(
    ["content-length", "content-type", "content-encoding", "transfer-encoding", "content-range", "expect"]
), st.text(st.characters(max_codepoint=255), max_size=30)), max_size=6))  # fmt: skip
async def test_no_header_makes_a_server_error(door: Door, headers: list[tuple[str, str]]) -> None:
    answer = await door.put(await door.url(), b"x" if not headers else Body([b"x"]), headers)
    assert answer.status < 500


# --- in the applications of others -----------------------------------------------------------------------------------


async def test_guides_snippet_without_a_return_works(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flet_fastapi.uploads.endpoint.app_manager", door.server)
    app = FastAPI()

    @app.put("/upload")
    async def flet_uploads(request: Request) -> None:
        await FletUpload(str(door.directory)).handle(request)

    url = await door.url()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answers = [await client.put(url, content=b"x") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["detail"]["error"] == "already_used"


async def test_returned_response_is_the_whole_answer(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flet_fastapi.uploads.endpoint.app_manager", door.server)
    app = FastAPI()
    app.add_exception_handler(UploadRefused, lambda _, error: error.response())

    @app.put("/upload", response_model=None)
    async def flet_uploads(request: Request) -> Any:
        return await FletUpload(str(door.directory)).handle(request)

    url = await door.url()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answers = [await client.put(url, content=b"x") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert set(answers[1].json()) == {"error", "detail"}


async def test_proxy_that_takes_its_prefix_off_is_allowed_for(make_door: MakeDoor) -> None:
    door, plain = make_door({"proxy_path": "/apps/one"}), make_door()
    url = await door.url(path="/apps/one/upload")
    stripped = url.removeprefix("/apps/one")
    assert (await plain.put(stripped, b"x")).error == "bad_signature"
    assert (await door.put(stripped, b"x")).status == 201


@pytest.mark.parametrize("path", ["/root/upload", "/upload"])
async def test_root_path_belongs_to_the_path_whether_the_server_puts_it_there_or_not(door: Door, path: str) -> None:
    url = await door.url(path="/root/upload")
    answer = await door.put(url.replace("/root/upload", path), b"x", root_path="/root")
    assert answer.status == 201


async def test_cancelled_request_leaves_nothing(door: Door) -> None:
    reached = asyncio.Event()

    async def stop() -> None:
        reached.set()
        await asyncio.Event().wait()

    url = await door.url("a/b/f")
    upload = asyncio.create_task(door.put(url, Body([b"ab"], before={1: stop}), [("content-length", "4")]))
    await reached.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert door.files() == {}
    assert (await door.put(url, b"abcd")).status == 201


async def test_one_chunk_at_a_time_is_in_memory(door: Door) -> None:
    """The next chunk is asked for only when the last one is in the file."""
    sizes: list[int] = []

    async def measure() -> None:
        sizes.extend(await asyncio.to_thread(lambda: [path.stat().st_size for path in door.directory.iterdir()]))

    body = Body([b"x" * 1000] * 3, before={1: measure, 2: measure})
    await door.put(await door.url(), body, [("content-length", "3000")])
    assert sizes == [1000, 2000]


@pytest.mark.parametrize(
    ("assets", "uploads", "events"),
    [
        (".", "uploads", ["uploads_inside_assets"]),
        ("uploads/assets", "uploads", ["assets_inside_uploads"]),
        ("assets", "uploads", []),
    ],
)
async def test_start_warns_if_uploads_and_assets_mix(
    make_door: MakeDoor, tmp_path: Path, assets: str, uploads: str, events: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / assets).mkdir(parents=True, exist_ok=True)
    Assets(tmp_path / assets)
    door = make_door({"upload_dir": tmp_path / uploads})
    await door.endpoint.prepare()
    assert [vars(record)["event"] for record in caplog.records] == events


async def test_upload_beside_the_assets_is_known_as_one(door: Door, tmp_path: Path) -> None:
    """The guide's endpoints know nothing of each other, and neither do workers."""
    await door.put(await door.url("x.html"), b"evil")
    (door.directory / "unmarked.html").touch()
    (tmp_path / "own.html").touch()
    (door.directory / "x.html").rename(tmp_path / "moved.html")
    assets = Assets(tmp_path)
    found = [
        await asyncio.to_thread(assets.open, [name]) for name in ("uploads/unmarked.html", "moved.html", "own.html")
    ]
    for asset in found:
        asset and asset.file.close()
    assert [asset and asset.uploaded for asset in found] == [True, True, False]


async def test_start_removes_what_is_left_over_and_what_is_too_old(make_door: MakeDoor) -> None:
    before = make_door()
    for name in ("old", "new"):
        await before.put(await before.url(name))
    door = make_door(upload_max_age_seconds=3600)
    for name in (".flet-upload-9-dead", "not_uploaded"):
        (door.directory / name).touch()
    for name in ("old", "not_uploaded"):
        os.utime(door.directory / name, (0, 0))
    await door.endpoint.prepare()
    async with asyncio.timeout(30):
        while (door.directory / "old").exists():
            await asyncio.sleep(0.01)
    assert door.files() == {"new": b"", "not_uploaded": b""}
    assert door.server.counted("flet_upload_files_removed_total", reason="left_over") == 1


async def test_upload_that_a_stopping_server_cuts_off_gives_its_url_back(make_door: MakeDoor) -> None:
    door, other = make_door(max_uploads_per_session=1), make_door(max_uploads_per_session=1)
    url = await door.url()
    cut_off = asyncio.create_task(door.put(url, Body([b"x"], stalls=True), [("content-length", "2")]))
    async with asyncio.timeout(30):
        while not door.files():
            await asyncio.sleep(0.01)
    # as uvicorn and the manager do it
    cut_off.cancel()
    await door.server.tasks.stop()
    await door.server.part(Uploads).close()
    assert (await other.put(url, b"xy")).status == 201


async def test_files_of_any_age_stay_unless_that_is_set(door: Door) -> None:
    (door.directory / "old").touch()
    os.utime(door.directory / "old", (0, 0))
    await door.endpoint.prepare()
    assert "clean_uploads" not in {task.get_name() for task in asyncio.all_tasks()}
    assert door.files() == {"old": b""}


def test_url_is_relative_to_the_host() -> None:
    url = upload_url(Keyring(["k"]), path="apps/ä b/upload", file_name="f", session_key="s", expires_seconds=1)
    assert url.startswith("/apps/%C3%A4%20b/upload?t=")


def test_session_key_is_not_in_the_url() -> None:
    url = upload_url(Keyring(["k"]), path="/upload", file_name="f", session_key="secret-key", expires_seconds=1)
    claims = url.partition("t=")[2].partition(".")[0]
    assert b"secret-key" not in urlsafe_b64decode(claims + "==")
