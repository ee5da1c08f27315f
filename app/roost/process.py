"""What a worker's process is set to before it serves."""

from __future__ import annotations

import gc

from flet_fastapi.options import Limits

# A session is a few hundred objects with cycles in them, and stays. With Python's own threshold of 700 the collector
# runs several times for each session that starts and finds nothing; with this one, once in some twenty.
_YOUNG_OBJECTS = 10_000
# Frames over this size are refused by the server before they are read whole; Flet's own limit lies below, if nothing
# else is set.
_LARGEST_FRAME = 16 * 1024 * 1024


def tune() -> None:
    """Keep the garbage collector from looking again and again at what stays: the libraries, and living sessions."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


def largest_frame() -> int:
    """The bytes of a websocket message that the server takes."""
    return max(_LARGEST_FRAME, Limits.load().max_frame_size)
