"""Where uploaded files go: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Incoming(ABC):
    """A file on its way in. Nobody sees it before `commit`, and nothing is left of it after `discard`."""

    @abstractmethod
    async def write(self, chunk: bytes) -> None:
        """Append.

        Raises:
            UploadRefused: `no_space` or `storage`.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Make what was written durable.

        Raises:
            UploadRefused: as for `write`.
        """

    @abstractmethod
    async def commit(self) -> bool:
        """Put the file in its place, an older one of this name replaced as a whole; True if there was none.

        Raises:
            UploadRefused: `name_is_taken` or `storage`.
        """

    @abstractmethod
    async def discard(self) -> None:
        """Leave nothing behind, even if the caller is cancelled meanwhile; does nothing after `commit`."""


class Storage(ABC):
    """A place for files."""

    @abstractmethod
    async def open(self, parts: tuple[str, ...], size: int) -> Incoming:
        """Room for `size` bytes at `parts`, before the first of them is there.

        Raises:
            UploadRefused: `bad_name`, `name_is_taken`, `no_space`, `quota` or `storage`.
        """

    @abstractmethod
    async def check(self) -> None:
        """Whether a small file could be stored now; none is.

        Raises:
            UploadRefused: `no_space` or `storage`.
        """

    @abstractmethod
    async def sweep(self) -> int:
        """Remove what killed workers left; returns the number of files."""

    @abstractmethod
    async def clean(self, max_age_seconds: float) -> int:
        """Remove files that are older than `max_age_seconds`; returns their number."""

    @abstractmethod
    async def problem(self) -> str | None:
        """Why no upload can be stored now, if that is so, in words for the operator."""
