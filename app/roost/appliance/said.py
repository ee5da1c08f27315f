"""What a command says to the person who runs it."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """On standard error: standard output is a command's result, which may be an archive."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def fail(text: str) -> int:
    say(f"ERROR: {text}")
    return 1
