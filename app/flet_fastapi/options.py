"""Every parameter of `app()` and every `FLET_*` variable, checked once.

As in Flet, an environment variable overrides the argument of the same meaning. Unlike in Flet, variables are read once,
when the app is constructed and `app_manager` starts, and a bad value raises `OptionError`, which names the variable.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from flet_core.types import WebRenderer
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .cluster import check_url, is_shared
from .environment import given
from .errors import OptionError

# Never shown; a file may hold what they say, which a variable of the same name and `_FILE` names.
SECRETS = frozenset({"FLET_SECRET_KEY", "FLET_CLUSTER_URL", "FLET_CLUSTER_SECRET"})

MiB = 1024 * 1024
GiB = 1024 * MiB

_PORTS = {"http": 80, "https": 443}
# Of what workers prove to each other that they belong together; `openssl rand -hex 16` gives twice as much.
_SECRET_LENGTH = 16
# What says that pages of any website may open a websocket: nobody writes it by accident.
ANY_ORIGIN = "any-origin"
# What browsers take for the beginning of another address (RFC 3986, 4.2).
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST = re.compile(r"[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_CSP_KEYWORDS = frozenset({"self", "none", "unsafe-eval"})
_SOURCE = re.compile(r"[A-Za-z0-9+.:/*_~%@!$&()=?\[\]-]{1,500}|'sha(256|384|512)-[\w+/=-]{8,100}'")


def _directory(path: Path) -> Path:
    path = _absolute(path)
    # it may be made later, but only in a directory
    existing = next(place for place in (path, *path.parents) if _exists(place))
    if not existing.is_dir():
        raise ValueError("is not a directory" if existing == path else f"is not in a directory: {existing} is a file")
    return path


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must not contain NUL")
    try:
        os.fsencode(path)
        return path.expanduser().absolute()
    except UnicodeError:
        raise ValueError("must be text that can be encoded") from None
    except RuntimeError:
        raise ValueError("names the home directory of nobody") from None
    except OSError as error:
        raise ValueError(f"is relative, and there is no working directory: {error.strerror}") from None


def _exists(place: Path) -> bool:
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        if place.is_symlink():
            raise ValueError(f"leads through a link to nothing: {place}") from None
        return False
    except OSError as error:
        raise ValueError(f"cannot be looked at: {error.strerror}") from None
    return True


def _existing_directory(path: Path) -> Path:
    path = _directory(path)
    if not path.is_dir():
        raise ValueError("directory does not exist")
    if not _may(path, os.R_OK | os.X_OK):
        raise ValueError("directory cannot be read")
    return path


def _upload_directory(path: Path) -> Path:
    """If it is missing, it is made at start; a disk that cannot be written to now must not stop a worker."""
    path = _directory(path)
    if not path.is_dir():
        return path
    if not _may(path, os.R_OK | os.X_OK):
        raise ValueError("directory cannot be read")
    if not _may(path, os.W_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise ValueError("directory cannot be written to")
    return path


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _endpoint(path: str) -> str:
    """`/upload`, `upload` and `//upload/` all mean `upload`."""
    if any(c in path for c in "?#{}\\") or not path.isprintable() or _SCHEME.match(path):
        raise ValueError("must be a plain URL path")
    path = path.strip("/")
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("must be a plain URL path, without empty parts and dots")
    return path


def _url_path(path: str) -> str:
    """An absolute URL path without a trailing slash; the root is the empty string."""
    if path in ("", "/"):
        return ""
    if path.startswith("//") or path.endswith("//"):
        raise ValueError("must be a plain URL path: two slashes begin the name of a host")
    return "/" + _endpoint(path)


def check_url_path(name: str, path: object) -> str:
    """`path` as an absolute URL path without a trailing slash; the root is the empty string.

    Raises:
        OptionError: naming `name`.
    """
    try:
        if not isinstance(path, str):
            raise ValueError("must be an absolute URL path")
        return _url_path(path)
    except ValueError as error:
        raise OptionError(name, f"{error} (got {path!r})") from None


def _below_root(path: str) -> str:
    if not path:
        raise ValueError("must be a URL path below the root")
    return path


def _no_bool(value: object) -> object:
    # bool is an int in Python: max_upload_size=True would quietly mean one byte
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    return value


def _member(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _comma_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def origin_of(url: str) -> str:
    """The origin of an http(s) URL as browsers write it: `HTTPS://Example.com:443/x` gives `https://example.com`.

    Raises:
        ValueError: it is no such URL, or it carries a user name.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or not url.isprintable():
        raise ValueError("must be an origin such as https://example.com")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}")


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be an origin, without a path")
    if "*" in value:
        raise ValueError("must name one origin, without wildcards")
    return origin_of(value)


def _allowed_origin(value: str) -> str:
    if value == "*":
        # copied from somewhere, it would let every website act as the user whose browser shows it
        raise ValueError(f"does not take '*'; {ANY_ORIGIN!r} lets pages of every website in")
    return value if value == ANY_ORIGIN else _origin(value)


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("must be host names, without a port")
    return value.lower()


def _source(value: str) -> str:
    """A source of a Content-Security-Policy (CSP Level 3, section 2.3.1); the quotes of keywords may be left out."""
    bare = value.strip("'")
    if bare in _CSP_KEYWORDS:
        return f"'{bare}'"
    if not _SOURCE.fullmatch(value):
        raise ValueError("must be sources such as https: or https://tiles.example.com")
    return value


def _lone_none(values: tuple[str, ...]) -> tuple[str, ...]:
    if "'none'" in values and len(values) > 1:
        raise ValueError("'none' stands alone")
    return values


def _page_path(value: str) -> str:
    return _url_path(value) or "/"


def _header_value(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("must be printable ASCII")
    return value


def _space_or_comma_list(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _key_list(value: object) -> object:
    """Several keys may be given, newest first: the newest signs, all of them verify."""
    if isinstance(value, str):
        return tuple(key for key in (part.strip() for part in value.split(",")) if key)
    return value


def _not_blank(key: SecretStr) -> SecretStr:
    if not key.get_secret_value().strip():
        raise ValueError("must not be empty")
    return key


def _signing(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    try:
        text.encode()
    except UnicodeError:
        raise ValueError("must be text that UTF-8 can encode") from None
    if "\0" in text:  # HMAC takes NULs at the end for nothing: two keys would be one
        raise ValueError("must not contain NUL")
    return key


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeError:
        raise ValueError("must be text that UTF-8 can encode") from None
    return text


def _cluster_url(url: SecretStr) -> SecretStr:
    check_url(url.get_secret_value())
    return url


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().strip()) < _SECRET_LENGTH:
        raise ValueError(f"must have at least {_SECRET_LENGTH} characters")
    return secret


def listen_address(value: str) -> tuple[str, int]:
    """The host and the port of an address to listen on; without a port, 0.

    Raises:
        ValueError: it is no such address.
    """
    host, colon, port = (value, "", "") if value.endswith("]") else value.rpartition(":")
    if not colon:
        host, port = value, "0"
    if not _HOST.fullmatch(host) or not port.isdecimal() or not port.isascii() or int(port[:6]) > 65535:
        raise ValueError("must be an address to listen on, such as 10.0.0.5, 10.0.0.5:7000 or [fd00::5]:7000")
    return host.strip("[]"), int(port)


def _listen_address(value: str) -> str:
    listen_address(value)
    return value


def _empty_is_none(value: object) -> object:
    """As in Flet: the empty path is no path, and not the working directory."""
    return None if value == "" else value


Directory = Annotated[Path, AfterValidator(_directory)]
UploadDirectory = Annotated[Path, AfterValidator(_upload_directory)]
ExistingDirectory = Annotated[Path, AfterValidator(_existing_directory)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
UrlPath = Annotated[str, Field(strict=True), AfterValidator(_url_path)]
UploadPath = Annotated[UrlPath, AfterValidator(_below_root)]
Text = Annotated[str, Field(max_length=1000, strict=True), AfterValidator(_encodable)]
Seconds = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=10 * 365 * 24 * 3600)]
Positive = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Natural = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
ClusterUrl = Annotated[SecretStr, AfterValidator(_cluster_url)]
ClusterSecret = Annotated[SecretStr, AfterValidator(_long_enough)]
ListenAddress = Annotated[str, AfterValidator(_listen_address)]
NodeName = Annotated[str, Field(pattern=r"^[\w.:-]{1,100}$")]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_comma_list)]
AllowedOrigins = Annotated[tuple[Annotated[str, AfterValidator(_allowed_origin)], ...], BeforeValidator(_comma_list)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_comma_list)]
PagePaths = Annotated[tuple[Annotated[str, AfterValidator(_page_path)], ...], BeforeValidator(_comma_list)]
Sources = Annotated[
    tuple[Annotated[str, AfterValidator(_source)], ...],
    BeforeValidator(_space_or_comma_list), AfterValidator(_lone_none),
]  # fmt: skip
HeaderValue = Annotated[str, Field(max_length=4000), AfterValidator(_header_value)]
Key = Annotated[SecretStr, AfterValidator(_not_blank), AfterValidator(_signing)]
Keys = Annotated[tuple[Key, ...], BeforeValidator(_key_list), Field(min_length=1)]


class _Variables(PydanticBaseSettingsSource):
    """The environment variables that fields name as their alias: exactly these, and an empty one counts as unset."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = str(field.validation_alias or "")
        found = given(variable, secret=variable in SECRETS) if variable else None
        return found and found.value, variable, False

    def __call__(self) -> dict[str, Any]:
        found = [self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items()]
        return {variable: value for value, variable, _ in found if value is not None}


class _Settings(BaseSettings):
    """Settings whose errors name what the operator wrote: the variable if it is set, else the parameter."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        return _Variables(settings_cls), init_settings

    @classmethod
    def written(cls, field: str) -> str:
        """What the operator wrote to set `field`: its variable if that is set, else the parameter."""
        variable = str(cls.model_fields[field].validation_alias or "")
        found = given(variable, secret=variable in SECRETS) if variable else None
        return found.variable if found else field

    @classmethod
    def load(cls, **arguments: Any) -> Self:
        """Check `arguments` and the environment.

        Raises:
            OptionError: naming the first parameter or variable that is wrong.
        """
        try:
            return cls(**arguments)
        except ValidationError as error:
            raise _option_error(cls, error) from None


def _option_error(cls: type[_Settings], error: ValidationError) -> OptionError:
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "?"
    for name, info in cls.model_fields.items():
        variable = str(info.validation_alias or "")
        if field in (name, variable):
            field = cls.written(name)
            secret = variable in SECRETS
            break
    else:
        secret = True
    problem = first["msg"].removeprefix("Value error, ")
    return OptionError(field, problem if secret else f"{problem} (got {first['input']!r})")


class Options(_Settings):
    """What one app is made of: the parameters of `app()`, with Flet's names and defaults.

    Source: the Flet guide "Running Flet with FastAPI", and `flet` 0.24.
    """

    assets_dir: Annotated[ExistingDirectory | None, BeforeValidator(_empty_is_none)] = Field(
        None, validation_alias="FLET_ASSETS_DIR"
    )
    app_name: Text | None = None
    app_short_name: Text | None = None
    app_description: Text | None = None
    web_renderer: Annotated[WebRenderer, BeforeValidator(_member)] = Field(
        WebRenderer.CANVAS_KIT, validation_alias="FLET_WEB_RENDERER"
    )
    use_color_emoji: bool = Field(False, validation_alias="FLET_WEB_USE_COLOR_EMOJI")
    route_url_strategy: Annotated[Literal["path", "hash"], BeforeValidator(_member)] = Field(
        "path", validation_alias="FLET_WEB_ROUTE_URL_STRATEGY"
    )
    no_cdn: bool = Field(False, validation_alias="FLET_WEB_NO_CDN")
    upload_dir: Annotated[UploadDirectory | None, BeforeValidator(_empty_is_none)] = Field(
        None, validation_alias="FLET_UPLOAD_DIR"
    )
    max_upload_size: Positive | None = Field(None, validation_alias="FLET_MAX_UPLOAD_SIZE")
    secret_key: Keys | None = Field(None, validation_alias="FLET_SECRET_KEY")
    session_timeout_seconds: Seconds = Field(3600, validation_alias="FLET_SESSION_TIMEOUT")
    oauth_state_timeout_seconds: Annotated[Seconds, Field(ge=1)] = Field(
        600, validation_alias="FLET_OAUTH_STATE_TIMEOUT"
    )
    proxy_path: UrlPath | None = None
    upload_endpoint_path: Annotated[UploadPath | None, BeforeValidator(_empty_is_none)] = None
    websocket_endpoint: Endpoint = Field("ws", validation_alias="FLET_WEBSOCKET_HANDLER_ENDPOINT")
    upload_endpoint: Endpoint = Field("upload", validation_alias="FLET_UPLOAD_HANDLER_ENDPOINT")
    oauth_endpoint: Endpoint = Field("oauth_callback", validation_alias="FLET_OAUTH_CALLBACK_HANDLER_ENDPOINT")
    csp: Annotated[Literal["on", "report", "off"], BeforeValidator(_member)] = Field("on", validation_alias="FLET_CSP")
    csp_sources: Sources = Field(("https:",), validation_alias="FLET_CSP_SOURCES")
    csp_scripts: Sources = Field((), validation_alias="FLET_CSP_SCRIPTS")
    frame_ancestors: Annotated[Sources, Field(min_length=1)] = Field(
        ("'self'",), validation_alias="FLET_FRAME_ANCESTORS"
    )
    permissions_policy: HeaderValue | None = Field(None, validation_alias="FLET_PERMISSIONS_POLICY")
    isolated_routes: PagePaths = Field((), validation_alias="FLET_ISOLATED_ROUTES")

    @property
    def upload_path(self) -> str:
        """Where the app takes uploads itself; without `upload_dir`, `upload_endpoint_path` is somebody else's."""
        own = self.upload_endpoint_path if self.upload_dir is not None else None
        return own or f"/{self.upload_endpoint}"

    def make_upload_dir(self) -> None:
        """Make `upload_dir` if it is missing; blocks.

        Raises:
            OptionError: it cannot be made, or not be used.
        """
        if self.upload_dir is None:
            return
        try:
            self.upload_dir.mkdir(parents=True, exist_ok=True)
            _upload_directory(self.upload_dir)
        except OSError as error:
            problem = f"directory cannot be made: {error.strerror}"
        except ValueError as error:
            problem = str(error)
        else:
            return
        raise OptionError(self.written("upload_dir"), f"{problem} (got {str(self.upload_dir)!r})")


_PER_ADDRESS = frozenset({"handshakes_per_second", "handshake_burst", "max_connections_per_address"})


class Limits(_Settings):
    """The bounds of one worker: the same for all its apps, set by variables only.

    The defaults fit an app whose users type, drag and scroll all day; `docs/settings.md` explains each number.
    """

    debug: bool = Field(False, validation_alias="FLET_DEBUG")
    max_frame_size: Positive = Field(MiB, validation_alias="FLET_MAX_FRAME_SIZE")
    send_queue_size: Positive = Field(16 * MiB, validation_alias="FLET_SEND_QUEUE_SIZE")
    send_timeout_seconds: Positive = Field(30, validation_alias="FLET_SEND_TIMEOUT")
    register_timeout_seconds: Positive = Field(10, validation_alias="FLET_REGISTER_TIMEOUT")
    events_per_second: Positive = Field(2000, validation_alias="FLET_EVENTS_PER_SECOND")
    max_pending_handlers: Positive = Field(500, validation_alias="FLET_MAX_PENDING_HANDLERS")
    max_sessions: Positive = Field(10_000, validation_alias="FLET_MAX_SESSIONS")
    max_sessions_per_browser: Positive = Field(50, validation_alias="FLET_MAX_SESSIONS_PER_BROWSER")
    max_unregistered: Positive = Field(1000, validation_alias="FLET_MAX_UNREGISTERED")
    run_dir: Directory | None = Field(None, validation_alias="FLET_RUN_DIR")
    handler_threads: Positive = Field(256, validation_alias="FLET_HANDLER_THREADS")
    cluster_url: ClusterUrl | None = Field(None, validation_alias="FLET_CLUSTER_URL")
    cluster_listen: ListenAddress | None = Field(None, validation_alias="FLET_CLUSTER_LISTEN")
    cluster_secret: ClusterSecret | None = Field(None, validation_alias="FLET_CLUSTER_SECRET")
    node: NodeName | None = Field(None, validation_alias="FLET_NODE")
    max_concurrent_uploads: Positive = Field(100, validation_alias="FLET_MAX_CONCURRENT_UPLOADS")
    max_concurrent_uploads_per_session: Positive = Field(10, validation_alias="FLET_MAX_CONCURRENT_UPLOADS_PER_SESSION")
    max_uploads_per_session: Positive = Field(1000, validation_alias="FLET_MAX_UPLOADS_PER_SESSION")
    max_upload_bytes_per_session: Positive = Field(10 * GiB, validation_alias="FLET_MAX_UPLOAD_BYTES_PER_SESSION")
    min_upload_rate: Positive = Field(1024, validation_alias="FLET_MIN_UPLOAD_RATE")
    upload_grace_seconds: Positive = Field(30, validation_alias="FLET_UPLOAD_GRACE")
    upload_lease_seconds: Positive = Field(30, validation_alias="FLET_UPLOAD_LEASE")
    upload_dir_quota: Positive | None = Field(None, validation_alias="FLET_UPLOAD_DIR_QUOTA")
    upload_min_free: Natural | None = Field(None, validation_alias="FLET_UPLOAD_MIN_FREE")
    upload_max_age_seconds: Positive | None = Field(None, validation_alias="FLET_UPLOAD_MAX_AGE")
    oauth_redirect_origins: Origins = Field((), validation_alias="FLET_OAUTH_REDIRECT_ORIGINS")
    allowed_origins: AllowedOrigins = Field((), validation_alias="FLET_ALLOWED_ORIGINS")
    allow_no_origin: bool = Field(False, validation_alias="FLET_ALLOW_NO_ORIGIN")
    allowed_hosts: Hosts = Field((), validation_alias="FLET_ALLOWED_HOSTS")
    handshakes_per_second: Positive = Field(50, validation_alias="FLET_HANDSHAKES_PER_SECOND")
    handshake_burst: Positive = Field(1000, validation_alias="FLET_HANDSHAKE_BURST")
    max_connections_per_address: Positive = Field(1000, validation_alias="FLET_MAX_CONNECTIONS_PER_ADDRESS")
    max_connections_per_browser: Positive = Field(100, validation_alias="FLET_MAX_CONNECTIONS_PER_BROWSER")
    limit_private_addresses: bool | None = Field(None, validation_alias="FLET_LIMIT_PRIVATE_ADDRESSES")
    idle_timeout_seconds: Positive | None = Field(None, validation_alias="FLET_IDLE_TIMEOUT")

    @property
    def has_shared_cluster(self) -> bool:
        """Whether workers of other hosts may belong to the cluster."""
        return self.cluster_url is not None and is_shared(self.cluster_url.get_secret_value())

    @property
    def limits_private_addresses(self) -> bool:
        """Whether private addresses count: as set, else if one of the limits per address was set."""
        if self.limit_private_addresses is not None:
            return self.limit_private_addresses
        return not _PER_ADDRESS.isdisjoint(self.model_fields_set)
