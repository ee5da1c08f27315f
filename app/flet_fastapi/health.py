"""What is known to be wrong with the parts that sessions can do without: what `app_manager.health()` tells."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """One thing that is needed, and why it cannot be used, if it cannot."""

    name: str
    ok: bool
    reason: str = ""


class Health:
    """What is known to be wrong with which part; a part may have several places, each of which tells of itself."""

    def __init__(self, *names: str) -> None:
        self._problems: dict[str, dict[str, str]] = {name: {} for name in names}

    def tell(self, name: str, place: str, problem: str | None) -> None:
        """From now on this is wrong with `place` of the part `name`; None: nothing is."""
        if problem is None:
            self._problems[name].pop(place, None)
        else:
            self._problems[name][place] = problem

    def parts(self) -> list[Part]:
        return [Part(name, not problems, "; ".join(problems.values())) for name, problems in self._problems.items()]
