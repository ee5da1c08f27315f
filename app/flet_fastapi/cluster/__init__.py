"""Where workers meet: the interface is in `base`, one implementation per module beside it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from .base import Cluster, ClusterUnavailable

__all__ = ["Cluster", "ClusterUnavailable", "check_url", "from_url"]


def check_url(url: str) -> str:
    """`url` if it names a cluster that there is.

    Raises:
        ValueError: saying what is wrong with it.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise ValueError("must be sqlite:///path")
    if parts.netloc or parts.query or parts.fragment or not parts.path.strip("/") or "\0" in unquote(parts.path):
        raise ValueError("must be sqlite:///path, with an absolute path and nothing else")
    return url


def from_url(url: str | None, run_directory: Path) -> Cluster:
    """The cluster at `url`; without one, that of the workers which share `run_directory`."""
    from .embedded import EmbeddedCluster

    if url is None:
        return EmbeddedCluster(run_directory / "cluster.sqlite3")
    # sqlite:///var/x and sqlite:////var/x both mean /var/x
    return EmbeddedCluster(Path("/" + unquote(urlsplit(check_url(url)).path).lstrip("/")))
