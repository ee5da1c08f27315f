"""What the processes of one server know of each other: a page of shared memory, made before the workers are."""

from __future__ import annotations

import mmap
from enum import IntEnum

# A page of memory holds them and what else is here.
MAX_SLOTS = 512
_BOOTED, _SLOTS, _STATES = 0, 1, 3


class State(IntEnum):
    """Of the worker that has a slot."""

    NONE = 0
    STARTING = 1
    READY = 2
    FULL = 3
    DRAINING = 4


SERVING = (State.READY, State.FULL)


class Board:
    """A byte for each slot, written by the worker that has it, and by the master when that has died."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.slots = slots

    @property
    def slots(self) -> int:
        """How many workers there should be: their slots are 0 to one less."""
        return int.from_bytes(self._memory[_SLOTS:_STATES])

    @slots.setter
    def slots(self, slots: int) -> None:
        self._memory[_SLOTS:_STATES] = slots.to_bytes(2)

    @property
    def booted(self) -> bool:
        """Whether a worker of this server has ever been ready."""
        return bool(self._memory[_BOOTED])

    def __getitem__(self, slot: int) -> State:
        return State(self._memory[_STATES + slot])

    def __setitem__(self, slot: int, state: State) -> None:
        self._memory[_STATES + slot] = state
        if state in SERVING:
            self._memory[_BOOTED] = 1

    def serving(self, *, besides: int | None = None) -> int:
        """How many workers serve, without the one of the slot `besides`."""
        return sum(self[slot] in SERVING for slot in range(MAX_SLOTS) if slot != besides)
