"""How a worker joins the others of its cluster, as its settings have it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import SecretStr

from ..errors import OptionError
from ..options import Limits, listen_address
from . import sockets
from .sockets import Place
from .urls import RedisAddress, parse

_ALL = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  the words for all addresses


def secrets_of(limits: Limits, keys: Sequence[SecretStr]) -> list[bytes]:
    """What the workers of several hosts prove to each other, newest first; on one host, to reach a socket is enough.

    Raises:
        OptionError: there is none.
    """
    if not limits.has_shared_cluster:
        return []
    if limits.cluster_secret is not None:
        return [limits.cluster_secret.get_secret_value().encode()]
    if not keys:
        raise OptionError("FLET_CLUSTER_SECRET", "or FLET_SECRET_KEY must be set where FLET_CLUSTER_URL names a Redis")
    return [hashlib.sha256(b"flet cluster " + key.get_secret_value().encode()).digest() for key in keys]


def place_of(limits: Limits, folder: Callable[[], Path]) -> Place:
    """Where this worker listens for the others: in `folder()`, or over TCP if some are on other hosts. Blocks.

    Raises:
        OSError: this cannot be found out now.
    """
    if limits.cluster_url is None or not limits.has_shared_cluster:
        return Place(folder())
    host, port = ("", 0) if limits.cluster_listen is None else listen_address(limits.cluster_listen)
    if host not in _ALL:
        return Place(host=host, port=port)
    store = parse(limits.cluster_url.get_secret_value())
    hosts = store.hosts if isinstance(store, RedisAddress) else ()
    route = sockets.address_towards(*hosts[0]) if hosts else "127.0.0.1"
    return Place(host=host or route, port=port, shown=route)
