"""Where workers meet: the interface is in `base`, one implementation per module beside it."""

from __future__ import annotations

from pathlib import Path

from .base import Cluster, ClusterUnavailable, WorkerInfo
from .urls import is_shared, parse

__all__ = ["Cluster", "ClusterUnavailable", "WorkerInfo", "check_url", "from_url", "is_shared"]


def check_url(url: str) -> str:
    """`url` if it names a cluster that there is.

    Raises:
        ValueError: saying what is wrong with it.
    """
    parse(url)
    return url


def from_url(url: str) -> Cluster:
    """The cluster at `url`, which is not asked yet; may block, for a Redis needs a library that takes long to import.

    Raises:
        ValueError: saying what is wrong with `url`.
    """
    place = parse(url)
    if isinstance(place, Path):
        from .embedded import EmbeddedCluster

        return EmbeddedCluster(place)
    from .redis import SharedCluster

    return SharedCluster(place)
