"""Where a cluster's store is: `FLET_CLUSTER_URL`, read and checked.

Nothing here ever shows what it was given: it may hold a password, and a password that was not encoded may stand
anywhere in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

Form = Literal["single", "unix", "sentinel", "cluster"]

_FORMS: Mapping[str, Form] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_PORTS: Mapping[Form, int] = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_SCHEME = re.compile(r"(?:redis|valkey)(?P<tls>s?)(?:\+(?P<form>sentinel|cluster))?", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]+)?\]")
# Braces would make Redis Cluster put all keys into one slot.
_PREFIX = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
_FORMS_TEXT = (
    "must be sqlite:///path, redis://host, rediss://host, unix:///socket,"
    " redis+sentinel://host,host/master or redis+cluster://host,host"
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis or Valkey, and how it is used. Its `repr` shows no password.

    `tls` holds redis-py's own arguments; it is None without TLS. Times are in seconds.
    """

    form: Form
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Mapping[str, Any] | None = None
    prefix: str = "flet"
    timeout: float = 1.0
    connect_timeout: float = 1.0
    max_connections: int = 16

    @property
    def place(self) -> str:
        """The address as people may read it."""
        if self.form == "unix":
            return f"unix://{self.path}"
        scheme = ("redis" if self.tls is None else "rediss") + ("" if self.form == "single" else f"+{self.form}")
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = {"single": f"/{self.db}", "sentinel": f"/{self.master}/{self.db}"}.get(self.form, "")
        return f"{scheme}://{hosts}{path}"


def parse(url: str) -> Path | RedisAddress:
    """What `url` names: the file of an embedded cluster, or a Redis.

    Raises:
        ValueError: saying what is wrong with it, without showing it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text would show the password
        raise ValueError("is no URL; in a user name or password, special characters must be URL-encoded") from None
    if parts.scheme == "sqlite":
        return _sqlite(parts)
    if parts.fragment or not url.isprintable():
        raise ValueError("must have no # and no control characters; in a password they must be URL-encoded")
    if parts.scheme == "unix":
        return _unix(parts)
    scheme = _SCHEME.fullmatch(parts.scheme)
    if scheme is None:
        raise ValueError(_FORMS_TEXT)
    return _redis(parts, _FORMS[(scheme["form"] or "").lower()], bool(scheme["tls"]))


def is_shared(url: str | None) -> bool:
    """Whether the store at `url`, which has been checked, may be that of several hosts."""
    return url is not None and urlsplit(url).scheme != "sqlite"


def _sqlite(parts: SplitResult) -> Path:
    if parts.netloc or parts.query or parts.fragment or not parts.path.strip("/") or "\0" in unquote(parts.path):
        raise ValueError("must be sqlite:///path, with an absolute path and nothing else")
    # sqlite:///var/x and sqlite:////var/x both mean /var/x
    return Path("/" + unquote(parts.path).lstrip("/"))


def _unix(parts: SplitResult) -> RedisAddress:
    userinfo, _, host = parts.netloc.rpartition("@")
    path = unquote(parts.path)
    if host or not path.strip("/") or "\0" in path:
        raise ValueError("must be unix:///path/of/the/socket")
    settings = _settings(parts.query, {**_COMMON, "db": _number})
    return RedisAddress("unix", path="/" + path.lstrip("/"), **_user(userinfo), **settings)


def _redis(parts: SplitResult, form: Form, tls: bool) -> RedisAddress:
    userinfo, _, hosts = parts.netloc.rpartition("@")
    known = dict(_COMMON)
    if form == "sentinel":
        known |= {"sentinel_username": str, "sentinel_password": str}
    if tls:
        known |= _TLS
    settings = _settings(parts.query, known)
    verified = {name: settings.pop(name) for name in tuple(settings) if name in _TLS}
    if ("ssl_keyfile" in verified) > ("ssl_certfile" in verified):
        raise ValueError("must name ssl_certfile where it names ssl_keyfile")
    return RedisAddress(
        form,
        _hosts(hosts, form),
        tls=MappingProxyType(_tls(verified)) if tls else None,
        **_path(parts.path, form),
        **_user(userinfo),
        **settings,
    )


def _tls(given: dict[str, Any]) -> dict[str, Any]:
    # a certificate that need not be valid says nothing of the host either
    unverified = given.get("ssl_cert_reqs", "required") != "required"
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": not unverified, **given}


def _hosts(text: str, form: Form) -> tuple[tuple[str, int], ...]:
    hosts = tuple(_host(host, _PORTS[form]) for host in text.split(","))
    if form == "single" and len(hosts) > 1:
        raise ValueError("must name one host; several are for redis+sentinel:// and redis+cluster://")
    return hosts


def _host(text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(default)
    if not _HOST.fullmatch(host):
        raise ValueError("must name a host, as in redis://host:6379; a password must be URL-encoded")
    if not port.isdecimal() or not port.isascii() or not 0 < int(port) < 65536:
        raise ValueError("must have ports between 1 and 65535; a password must be URL-encoded")
    return host.strip("[]"), int(port)


def _path(path: str, form: Form) -> dict[str, Any]:
    parts = [unquote(part) for part in path.strip("/").split("/") if part]
    if form == "cluster":
        if parts not in ([], ["0"]):
            raise ValueError("must have no database: a Redis Cluster has one only")
        return {}
    if form == "sentinel":
        if not 1 <= len(parts) <= 2:
            raise ValueError("must be redis+sentinel://host,host/master or …/master/database")
        return {"master": parts[0], "db": _number(parts[1]) if len(parts) == 2 else 0}
    if len(parts) > 1:
        raise ValueError("must be redis://host:port/database, with nothing more in the path")
    return {"db": _number(parts[0]) if parts else 0}


def _user(userinfo: str) -> dict[str, Any]:
    username, colon, password = userinfo.partition(":")
    return {"username": unquote(username) or None, "password": unquote(password) if colon and password else None}


def _settings(query: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"may have {', '.join(sorted(known))} behind the ?, and nothing else")
        if name in settings:
            raise ValueError(f"must have {name} once")
        try:
            settings[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    renamed = {"socket_timeout": "timeout", "socket_connect_timeout": "connect_timeout"}
    return {renamed.get(name, name): value for name, value in settings.items()}


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 6:
        raise ValueError("must be the number of a database")
    return int(text)


def _connections(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or not 1 <= int(text[:9]) <= 10_000:
        raise ValueError("must be a number between 1 and 10000")
    return int(text)


def _seconds(text: str) -> float:
    seconds = float(text) if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) else 0
    if not 0.01 <= seconds <= 60:
        raise ValueError("must be seconds between 0.01 and 60")
    return seconds


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("must be up to 64 letters, digits and . _ : / -")
    return text


def _file(text: str) -> str:
    if not text or not os.path.isfile(text) or not os.access(text, os.R_OK):
        raise ValueError("must be a file that can be read")
    return text


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def _requirement(text: str) -> str:
    if text not in ("required", "optional", "none"):
        raise ValueError("must be required, optional or none")
    return text


_COMMON: Mapping[str, Callable[[str], Any]] = {
    "prefix": _prefix,
    "max_connections": _connections,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
}
# redis-py's own names
_TLS: Mapping[str, Callable[[str], Any]] = {
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _boolean,
}
