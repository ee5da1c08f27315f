from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flet_core.types import WebRenderer

from flet_fastapi.errors import OptionError
from flet_fastapi.options import Limits, Options, check_url_path, listen_address, origin_of


def test_defaults_are_flets() -> None:
    options = Options.load()
    assert options.web_renderer is WebRenderer.CANVAS_KIT
    assert (options.route_url_strategy, options.use_color_emoji) == ("path", False)
    assert (options.session_timeout_seconds, options.oauth_state_timeout_seconds) == (3600, 600)
    assert (options.websocket_endpoint, options.upload_endpoint, options.oauth_endpoint) == (
        "ws", "upload", "oauth_callback",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("assets_dir", "/does/not/exist"),
        ("assets_dir", "/etc/passwd"),
        ("assets_dir", 5),
        ("assets_dir", "a\0b"),
        ("upload_dir", "/etc/passwd"),
        ("upload_dir", "/tmp/a\0b"),
        ("upload_dir", ["/tmp"]),
        ("app_name", 5),
        ("app_name", "x" * 1001),
        ("web_renderer", "opengl"),
        ("web_renderer", None),
        ("route_url_strategy", "query"),
        ("use_color_emoji", "maybe"),
        ("max_upload_size", 0),
        ("max_upload_size", -1),
        ("max_upload_size", True),
        ("max_upload_size", "big"),
        ("max_upload_size", 1.5),
        ("session_timeout_seconds", -1),
        ("session_timeout_seconds", None),
        ("session_timeout_seconds", float("inf")),
        ("session_timeout_seconds", float("nan")),
        ("session_timeout_seconds", 10**12),
        ("session_timeout_seconds", False),
        ("oauth_state_timeout_seconds", 0),
        ("secret_key", ""),
        ("secret_key", " , "),
        ("secret_key", 5),
        ("secret_key", []),
        ("proxy_path", "/a/../b"),
        ("proxy_path", "a b\n"),
        ("upload_endpoint_path", "http://x?y"),
        ("upload_endpoint_path", "/a{b}"),
        ("upload_endpoint_path", "http://e/up"),
        ("upload_endpoint_path", "/a//b"),
        ("upload_endpoint_path", "/"),
        ("proxy_path", "http://e/x"),
        ("proxy_path", "javascript:x"),
        ("proxy_path", "//evil.com/x"),
        ("proxy_path", "//"),
        ("proxy_path", "/a//"),
        ("proxy_path", "/a/./b"),
        ("proxy_path", b"/x"),
        ("app_name", b"x"),
        ("app_name", "\ud800"),
        ("secret_key", "\ud800"),
        ("secret_key", ["k", "a\0"]),
        ("assets_dir", "a" * 300),
        ("assets_dir", "~nosuchuser_x/y"),
        ("upload_dir", "/tmp/" + "b" * 300),
        ("upload_dir", "~nosuchuser_x/y"),
        ("upload_dir", "\ud800"),
    ],
)
def test_wrong_parameter_is_named(name: str, value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        Options.load(**{name: value})
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name}: ")


def test_unknown_parameter_is_named() -> None:
    with pytest.raises(OptionError, match="colour"):
        Options.load(colour="red")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLET_SESSION_TIMEOUT", "soon"),
        ("FLET_SESSION_TIMEOUT", "-1"),
        ("FLET_SESSION_TIMEOUT", "1e3"),
        ("FLET_OAUTH_STATE_TIMEOUT", "0"),
        ("FLET_UPLOAD_DIR", "/etc/passwd"),
        ("FLET_ASSETS_DIR", "/does/not/exist"),
        ("FLET_MAX_UPLOAD_SIZE", "10MB"),
        ("FLET_WEB_RENDERER", "opengl"),
        ("FLET_WEB_ROUTE_URL_STRATEGY", "query"),
        ("FLET_WEB_USE_COLOR_EMOJI", "maybe"),
        ("FLET_WEB_NO_CDN", "2"),
        ("FLET_WEBSOCKET_HANDLER_ENDPOINT", "/"),
        ("FLET_UPLOAD_HANDLER_ENDPOINT", "a?b"),
        ("FLET_OAUTH_CALLBACK_HANDLER_ENDPOINT", "../x"),
        ("FLET_WEBSOCKET_HANDLER_ENDPOINT", "a/./b"),
        ("FLET_UPLOAD_HANDLER_ENDPOINT", "http://e/up"),
    ],
)
def test_wrong_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(OptionError, match=variable) as caught:
        Options.load()
    assert value in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLET_MAX_SESSIONS", "0"),
        ("FLET_MAX_FRAME_SIZE", "1MB"),
        ("FLET_DEBUG", "perhaps"),
        ("FLET_CLUSTER_URL", "mysql://x"),
        ("FLET_CLUSTER_LISTEN", "10.0.0.1:x"),
        ("FLET_CLUSTER_LISTEN", "10.0.0.1:65536"),
        ("FLET_CLUSTER_LISTEN", "tcp://10.0.0.1"),
        ("FLET_CLUSTER_LISTEN", ":7000"),
        ("FLET_CLUSTER_SECRET", "too short"),
        ("FLET_NODE", "a node"),
        ("FLET_OAUTH_REDIRECT_ORIGINS", "https://a.example/path"),
        ("FLET_HANDLER_THREADS", "-3"),
    ],
)
def test_wrong_limit_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(OptionError, match=variable):
        Limits.load()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLET_CLUSTER_URL", "redis://:hunter2@host/x"),
        ("FLET_CLUSTER_URL", "redis://user:hunter2#@host"),
        ("FLET_CLUSTER_SECRET", "hunter2"),
    ],
)
def test_secret_limit_is_in_no_error(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(OptionError, match=variable) as error:
        Limits.load()
    assert "hunter2" not in str(error.value)


def test_secret_limits_are_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_CLUSTER_URL", "redis://:hunter2@host")
    monkeypatch.setenv("FLET_CLUSTER_SECRET", "hunter2" * 3)
    limits = Limits.load()
    assert "hunter2" not in f"{limits!r} {limits}"
    assert limits.has_shared_cluster


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", 0)),
        ("10.0.0.1:7000", ("10.0.0.1", 7000)),
        ("[fd00::1]", ("fd00::1", 0)),
        ("[fd00::1]:7", ("fd00::1", 7)),
        ("worker-1.internal:7000", ("worker-1.internal", 7000)),
    ],
)
def test_address_to_listen_on(value: str, address: tuple[str, int]) -> None:
    assert listen_address(value) == address
    assert Limits.load(cluster_listen=value).cluster_listen == value


def test_variable_overrides_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_SESSION_TIMEOUT", "7")
    assert Options.load(session_timeout_seconds=9).session_timeout_seconds == 7


def test_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_SESSION_TIMEOUT", "")
    assert Options.load(session_timeout_seconds=9).session_timeout_seconds == 9


def test_wrong_argument_under_a_right_variable_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_SESSION_TIMEOUT", "7")
    assert Options.load(session_timeout_seconds="x").session_timeout_seconds == 7


@pytest.mark.parametrize("secret", ["k" * 40, "old,new"])
def test_secret_is_in_no_error_and_no_repr(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    assert secret not in repr(Options.load(secret_key=secret))
    with pytest.raises(OptionError) as caught:
        Options.load(secret_key=(secret, 5))
    assert secret not in str(caught.value)
    assert "'5'" not in repr(caught.value)


def test_keys_may_be_several() -> None:
    options = Options.load(secret_key="new, old")
    assert [key.get_secret_value() for key in options.secret_key or ()] == ["new", "old"]


@pytest.mark.parametrize(("given", "path"), [("upload", "upload"), ("/a/b/", "a/b"), ("//x", "x")])
def test_endpoints_are_normal_paths(monkeypatch: pytest.MonkeyPatch, given: str, path: str) -> None:
    monkeypatch.setenv("FLET_UPLOAD_HANDLER_ENDPOINT", given)
    assert Options.load().upload_endpoint == path


def test_directories_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Options.load(upload_dir="up").upload_dir == tmp_path / "up"


def test_options_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        Options.load().app_name = "x"


@pytest.mark.parametrize("renderer", ["canvaskit", " CanvasKit ", WebRenderer.CANVAS_KIT])
def test_renderer_may_be_a_member_or_its_value(renderer: Any) -> None:
    assert Options.load(web_renderer=renderer).web_renderer is WebRenderer.CANVAS_KIT


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.COM:443/x?y", "https://example.com"),
        ("http://a:80", "http://a"),
        ("http://a:8000", "http://a:8000"),
        ("https://[::1]:443", "https://[::1]"),
    ],
)
def test_origin_as_browsers_write_it(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["", "x", "ftp://a", "https://", "https://u@a", "https://a\n", "https://a:99999"])
def test_what_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        origin_of(url)


@pytest.mark.parametrize("variable", ["APP_NAME", "FLET_APP_NAME", "FLET_NO_CDN", "flet_session_timeout"])
def test_only_the_documented_variables_count(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "other")
    assert Options.load() == Options.load(app_name=None)


@pytest.mark.parametrize("key", [[""], ["good", " "]])
def test_a_blank_key_is_refused(key: list[str]) -> None:
    with pytest.raises(OptionError, match="secret_key: must not be empty"):
        Options.load(secret_key=key)


def test_a_key_that_no_signature_can_be_made_with_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLET_SECRET_KEY", "\udcff")
    with pytest.raises(OptionError, match="FLET_SECRET_KEY: must be text"):
        Options.load()


@pytest.fixture
def others() -> Iterator[Path]:
    """A directory of somebody else: permissions count for this process, also if it is root's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def forbid(folder: Path, mode: int) -> None:
    user = os.geteuid()
    os.seteuid(os.getuid())
    folder.chmod(mode)
    os.seteuid(user)


@pytest.mark.parametrize("name", ["assets_dir", "upload_dir"])
@pytest.mark.parametrize("below", ["", "x", "a/b"])
def test_a_directory_that_cannot_be_looked_into_is_named(others: Path, name: str, below: str) -> None:
    forbid(others, 0o000)
    with pytest.raises(OptionError, match=f"^{name}: "):
        Options.load(**{name: others / below})


def test_a_directory_that_cannot_be_read_holds_no_assets(others: Path) -> None:
    forbid(others, 0o111)
    with pytest.raises(OptionError, match="assets_dir: directory cannot be read"):
        Options.load(assets_dir=others)


def test_a_directory_that_cannot_be_written_to_takes_no_uploads(others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(others, 0o555)
    assert Options.load(assets_dir=others).assets_dir == others
    monkeypatch.setenv("FLET_UPLOAD_DIR", str(others))
    with pytest.raises(OptionError, match="FLET_UPLOAD_DIR: directory cannot be written to"):
        Options.load()


def test_an_upload_directory_is_made_and_kept(tmp_path: Path) -> None:
    options = Options.load(upload_dir=tmp_path / "a" / "b")
    for _ in range(2):
        options.make_upload_dir()
    assert (tmp_path / "a" / "b").is_dir()


def test_an_upload_directory_that_cannot_be_made_is_named(others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(others, 0o555)
    with pytest.raises(OptionError, match=r"upload_dir: directory cannot be made: .* \(got '.*/x'\)"):
        Options.load(upload_dir=others / "x").make_upload_dir()
    monkeypatch.setenv("FLET_UPLOAD_DIR", str(others / "x"))
    with pytest.raises(OptionError, match="FLET_UPLOAD_DIR: directory cannot be made"):
        Options.load().make_upload_dir()


def test_a_link_to_nothing_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(OptionError, match="upload_dir: leads through a link to nothing"):
        Options.load(upload_dir=tmp_path / "link" / "x")


@pytest.mark.parametrize(("given", "path"), [("", ""), ("/", ""), ("a", "/a"), ("/a/b/", "/a/b"), ("/a:b", "/a:b")])
def test_url_paths_are_plain(given: str, path: str) -> None:
    assert check_url_path("x", given) == Options.load(proxy_path=given).proxy_path == path


def test_the_empty_upload_path_is_none() -> None:
    assert Options.load(upload_endpoint_path="").upload_endpoint_path is None


@pytest.mark.parametrize(
    ("given", "path"),
    [({}, "/files"), ({"upload_dir": "/tmp"}, "/files"), ({"upload_endpoint_path": "/up"}, "/files"),
     ({"upload_endpoint_path": "/up", "upload_dir": "/tmp"}, "/up")],
)  # fmt: skip
def test_uploads_are_taken_at_the_path_that_was_given(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], path: str
) -> None:
    monkeypatch.setenv("FLET_UPLOAD_HANDLER_ENDPOINT", "files")
    assert Options.load(**given).upload_path == path
