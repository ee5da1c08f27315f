"""Write `dashboards/*.json` from `definitions.py`; a test fails when they differ: `python make_dashboards.py`."""

from __future__ import annotations

import json
from pathlib import Path

from definitions import DASHBOARDS

FOLDER = Path(__file__).with_name("dashboards")


def texts() -> dict[str, str]:
    """The content of each file, by its name."""
    return {f"{found.name}.json": json.dumps(found.json(), indent=1) + "\n" for found in DASHBOARDS}


def main() -> None:
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
