"""What the operator sets: `ROOST_*` variables, checked at start. What the apps do is in `flet_fastapi.options`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from flet_fastapi.environment import given
from flet_fastapi.errors import OptionError
from flet_fastapi.options import SECRETS, Keys, Limits, Options, UrlPath

from . import cgroup
from .board import MAX_SLOTS
from .forwarded import EVERYBODY, parse_networks

PREFIX = "ROOST_"
# Those of an app's own surroundings, which Flet or the app reads.
_FOREIGN = frozenset({"FLET_APP_STORAGE_DATA", "FLET_APP_STORAGE_TEMP"})
_SECRET_FIELDS = frozenset({"internal_token"})

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[KMGT]i?B?|B)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}

# Sixteen characters of a random text are 80 bits and more.
_MIN_SECRET = 16
_MIN_DIFFERENT = 6
_PLACEHOLDER = re.compile(
    r"chang(e|ing)(me|it|this)|replace(me|it|this|with)|placeholder|(your|my|a|the)secret|secretkey|insecure|example"
    r"|donotuse|notsecure|passphrase|generateme"
)
_TEMPLATE = re.compile(r"<.*>|\$\{.*\}|\{\{.*\}\}")


class MaxMemory(NamedTuple):
    """A share of what there is, or bytes of one process; the other one is None."""

    share: float | None
    bytes: int | None

    def __str__(self) -> str:
        return f"{self.share:.0%}" if self.share is not None else str(self.bytes)


def _max_memory(value: object) -> object:
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a share such as 85% or 0.85, or a size such as 600MB")
    number, unit = float(match[1]), (match[2] or "").lower()
    if unit == "%" or (not unit and number <= 1):
        share = number / 100 if unit == "%" else number
        if not 0 < share <= 1:
            raise ValueError("must be a share of more than 0% and up to 100%")
        return MaxMemory(share, None)
    return MaxMemory(None, int(number * _UNITS[unit[:1]]))


def _networks(text: str) -> str:
    parse_networks(text)
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", text):
        raise ValueError("must be an address or a host name, without a port")
    return text


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _strong(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for key in keys:
        if (problem := weakness(key.get_secret_value())) is not None:
            raise ValueError(problem)
    return keys


def weakness(secret: str) -> str | None:
    """Why a secret is none, if it is none: a placeholder, or short enough to be guessed."""
    if _TEMPLATE.fullmatch(secret) or _PLACEHOLDER.search(re.sub(r"[^a-z]", "", secret.lower())):
        problem = "is a placeholder"
    elif len(secret) < _MIN_SECRET or len(set(secret)) < _MIN_DIFFERENT:
        problem = "is too easy to guess"
    else:
        return None
    return f"{problem}: make one with `roost secret`"


Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, AfterValidator(_host)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class _Variables(PydanticBaseSettingsSource):
    """`ROOST_*` variables, by the names of the fields; an empty one counts as not set."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        found = given(variable_of(field_name), secret=field_name in _SECRET_FIELDS)
        return found and found.value, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """How the server runs. Every field is the variable `ROOST_` + its name."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    environment: Annotated[Literal["production", "development"], BeforeValidator(_lower)] = Field(
        "production",
        description="`production` or `development`. In production no secret may be missing or a placeholder. "
        "`roost run` is for development if nothing else is said.",
    )
    app: str = Field(
        min_length=1,
        description="The app: `path/to/file.py`, `package.module` or a folder with a `main.py`, with `:name` or "
        "without.",
    )
    host: Host = Field("127.0.0.1", description="The address to listen on, for clients or a proxy.")
    port: Port = Field(8000, description="The port to listen on; 0 picks a free one.")
    workers: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | Annotated[Literal["auto"], BeforeValidator(_lower)] = Field(
        "auto",
        description="Processes. `auto` is one for each CPU that the container's quota pays for; with `roost run` one.",
    )
    slot_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None,
        description="Each worker also listens on a port of its own, this one and those that follow, so that a proxy "
        "can send a browser to the same worker again. Only the proxy may reach them: its forwarded headers are "
        "believed there.",
    )
    internal_host: Host = Field("127.0.0.1", description="The address for health checks and metrics.")
    internal_port: Port = Field(9000, description="The port for health checks and metrics. Never publish it as it is.")
    internal_token: Annotated[Keys, AfterValidator(_strong)] | None = Field(
        None,
        description="Who asks there from another machine must send it, as `Authorization: Bearer`. Several may be "
        "given; each is accepted.",
    )
    forwarded_allow_ips: Annotated[str, AfterValidator(_networks)] = Field(
        "127.0.0.1,::1",
        description="Addresses and networks of proxies, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed "
        f"on the public listener; `{EVERYBODY}` is all of them.",
    )
    root_path: UrlPath = Field("", description="The URL prefix that a proxy in front strips.")
    ws_ping_interval: Seconds = Field(
        20, description="Seconds between the pings of a websocket: proxies cut what is silent for a minute."
    )
    ws_ping_timeout: Seconds = Field(
        20, description="Seconds that the answer to a ping may take before the connection counts as gone."
    )
    graceful_timeout: Annotated[int, Field(ge=1, le=24 * 3600)] = Field(
        30,
        description="Seconds that a stop may take: requests finish, sessions are closed. Whoever sends the signal must "
        "wait longer before it kills.",
    )
    start_timeout: Annotated[int, Field(ge=1, le=3600)] = Field(
        60, description="Seconds that a worker may take to import and start the app."
    )
    worker_timeout: Annotated[int, Field(ge=2, le=3600)] = Field(
        30, description="A worker whose event loop does not turn for so many seconds is killed and replaced."
    )
    max_requests: Annotated[int, Field(ge=0, le=10**9)] = Field(
        0,
        description="A worker is replaced after about so many requests, 0 is never. Sessions live in workers: it waits "
        "for them to end, up to `ROOST_GRACEFUL_TIMEOUT`.",
    )
    max_memory: Annotated[MaxMemory | None, BeforeValidator(_max_memory)] = Field(
        None,
        description="Above it no new sessions are taken: a share of the container's memory (`85%`, `0.85`), or what "
        "one worker may use (`600MB`). If nothing is said, 90% of the container's limit, if it has one.",
    )
    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)] = Field(
        "auto", description="`json`, `console`, or by the environment."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)] = Field(
        "info", description="What is logged: `debug`, `info`, `warning`, `error` or `critical`, and what is worse."
    )
    log_client: Annotated[Literal["full", "truncated", "none"], BeforeValidator(_lower)] = Field(
        "full", description="How much of a client's address is logged: `full`, `truncated` (its network) or `none`."
    )
    metrics_dir: Path | None = Field(
        None, description="Where the workers add up their metrics; made by the server, in memory, if nothing is said."
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        return init_settings, _Variables(settings_cls)

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        own = range(self.slot_port, self.slot_port + self.worker_count) if self.slot_port is not None else range(0)
        if own.stop > 65536:
            raise ValueError("slot_port", "leaves no port for each worker")
        for name in ("port", "internal_port"):
            if getattr(self, name) in own:
                raise ValueError(name, f"is also one of the workers' own, which are {own.start} to {own.stop - 1}")
        if self.port == self.internal_port != 0:
            raise ValueError("internal_port", "is also ROOST_PORT")
        return self

    @classmethod
    def load(cls, defaults: Mapping[str, object] | None = None, /, **arguments: object) -> Self:
        """The settings: arguments that are not None, else variables, else the `defaults` of a command, else ours.

        Raises:
            OptionError: naming the first variable or argument that is wrong.
        """
        chosen = {name: value for name, value in arguments.items() if value is not None}
        sources = dict.fromkeys(chosen, "argument")
        for name in cls.model_fields:
            if name not in chosen and (found := given(variable_of(name), secret=name in _SECRET_FIELDS)) is not None:
                sources[name] = found.variable
        chosen |= {name: value for name, value in (defaults or {}).items() if name not in sources}
        try:
            settings = cls(**chosen)  # type: ignore[arg-type]
        except ValidationError as error:
            raise _option_error(error, sources) from None
        settings._sources.update(sources)
        return settings

    def source(self, field: str) -> str:
        """Who said what `field` is: `argument`, a variable, or `default`."""
        return self._sources.get(field, "default")

    @property
    def worker_count(self) -> int:
        """The number of workers."""
        return cgroup.cpus() if self.workers == "auto" else self.workers

    @property
    def production(self) -> bool:
        return self.environment == "production"


def variable_of(field: str) -> str:
    return PREFIX + field.upper()


def _option_error(error: ValidationError, sources: Mapping[str, str]) -> OptionError:
    first = error.errors(include_url=False)[0]
    reason = first.get("ctx", {}).get("error")
    if not first["loc"] and isinstance(reason, ValueError) and len(reason.args) == 2:
        field, problem = reason.args
        return OptionError(_written(field, sources), problem)
    field = str(first["loc"][0])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return OptionError(variable_of(field), "is not set: it says which app is served")
    shown = "" if field in _SECRET_FIELDS else f" (got {first['input']!r})"
    return OptionError(_written(field, sources), problem + shown)


def _written(field: str, sources: Mapping[str, str]) -> str:
    source = sources.get(field, "argument")
    return variable_of(field) if source == "argument" else source


def check_secrets(settings: Settings, options: Options, limits: Limits) -> None:
    """In production the apps' keys must be there, and be keys.

    Raises:
        OptionError: naming the variable, and the command that makes a key.
    """
    if not settings.production:
        return
    if options.secret_key is None:
        raise OptionError("FLET_SECRET_KEY", "is not set, and production needs it: make one with `roost secret`")
    secrets = {"FLET_SECRET_KEY": options.secret_key, "FLET_CLUSTER_SECRET": getattr(limits, "cluster_secret", None)}
    for variable, value in secrets.items():
        for key in value if isinstance(value, tuple) else (value,):
            if isinstance(key, SecretStr) and (problem := weakness(key.get_secret_value())) is not None:
                found = given(variable, secret=True)
                raise OptionError(found.variable if found else variable, problem)


def unknown_variables(environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """A sentence for each `ROOST_*` and `FLET_*` variable that nobody reads."""
    known = known_variables()
    for name in sorted(environ):
        if not name.startswith((PREFIX, "FLET_")) or name in known or name in _FOREIGN:
            continue
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        yield f"{name} is no setting" + (f"; did you mean {similar[0]}?" if similar else " and changes nothing")


def known_variables() -> frozenset[str]:
    own = {variable_of(name) for name in Settings.model_fields}
    flet = {
        str(field.validation_alias)
        for field in {**Options.model_fields, **Limits.model_fields}.values()
        if field.validation_alias
    }
    secret = {variable_of(name) for name in _SECRET_FIELDS} | (SECRETS & flet)
    return frozenset(own | flet | {f"{name}_FILE" for name in secret})


def markdown() -> str:
    """The table of `ROOST_*` variables for the documentation."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        shown = variable_of(name) + ("`, `" + variable_of(name) + "_FILE" if name in _SECRET_FIELDS else "")
        rows.append(f"| `{shown}` | {_default(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default in (None, ""):
        return ""
    return f"`{field.default}`"
