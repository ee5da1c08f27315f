"""The exceptions of this library: one small tree, with the data on the exception."""

from __future__ import annotations


class FletFastAPIError(Exception):
    """Base of every error that this library raises."""


class OptionError(FletFastAPIError, ValueError):
    """A parameter or an environment variable is wrong.

    `name` is the parameter or variable as the operator wrote it, `problem` says what was wrong. Raised when an app
    is constructed, never later.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class CloseConnection(FletFastAPIError):
    """The connection must be closed with `code` (RFC 6455, section 7.4) and `reason`; its session, if any, survives."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class InvalidFrame(CloseConnection):
    """The client sent what the protocol does not allow. `kind` is a short metric label."""

    def __init__(self, kind: str, reason: str, code: int = 1008) -> None:
        super().__init__(code, reason)
        self.kind = kind


class Unsettled(FletFastAPIError):
    """The page does not know the control (yet): an update is being computed in a thread."""


class Disconnected(FletFastAPIError):
    """A call to the client cannot be made: no browser is connected and too many calls wait already."""


class SessionClosed(FletFastAPIError):
    """The session has ended; its page can no longer be used."""


class UploadsDisabled(FletFastAPIError):
    """The app asked for an upload URL but has no `upload_dir` or upload endpoint."""
