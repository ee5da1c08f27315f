"""What a worker's process is set to before it serves."""

from __future__ import annotations

import gc

# A session is a few hundred objects with cycles in them, and stays. With Python's own threshold of 700 the collector
# runs several times for each session that starts and finds nothing; with this one, once in some twenty.
_YOUNG_OBJECTS = 10_000


def tune() -> None:
    """Keep the garbage collector from looking again and again at what stays: the libraries, and living sessions."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
