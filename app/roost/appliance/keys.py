"""`python -m roost.appliance.keys FOLDER [check]`: make the appliance's secrets where they are missing; look at all.

One folder for each service that reads them, so that none can read what is another's. Nothing is ever printed, and what
is there is never changed: an empty secret or one that everybody can read stops the start, for somebody made a mistake.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .said import fail, say

# Owner only; the other services' users read theirs as members of the group.
_OWN, _GROUP = 0o600, 0o640
# Shorter ones are placeholders or cut off.
_SHORTEST = 16
SECRETS: Mapping[str, int] = {
    "app/secret_key": _OWN,
    "app/cluster_secret": _OWN,
    "redis/password": _GROUP,
    "grafana/admin_password": _GROUP,
}
CLUSTER_URL = "app/cluster_url"


class BadSecret(Exception):
    """A secret is there and cannot be used."""


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path("/secrets")
    os.umask(0o077)
    try:
        if arguments[1:] != ["check"]:
            made = [name for name, mode in SECRETS.items() if make(folder / name, mode)]
            _write_cluster_url(folder)
            say(f"secrets: {len(made)} made, {len(SECRETS) - len(made)} were there")
        for name in (*SECRETS, CLUSTER_URL):
            check(folder / name)
    except (BadSecret, OSError) as error:
        return fail(f"secrets: {error}")
    return 0


def make(path: Path, mode: int) -> bool:
    """Whether it had to be made. Of several that make it at once one wins."""
    if os.path.lexists(path):
        return False
    with _written(path, secrets.token_urlsafe(48), mode) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    return True


def check(path: Path) -> None:
    """Raises:
    BadSecret: it is missing, no file, readable by everybody, or too short to be one.
    """
    if not os.path.lexists(path):
        raise BadSecret(f"{path} is missing: `make restore` brings it back, `make up` makes a new one")
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise BadSecret(f"{path} is not a file")
    if status.st_mode & 0o007:
        raise BadSecret(f"{path} can be read by everybody: chmod o= it")
    if len(path.read_bytes().strip()) < _SHORTEST:
        raise BadSecret(
            f"{path} is empty or too short. Restore it from a backup; or remove it, and the next start makes a new one "
            "(which ends what the old one has signed)"
        )


def _write_cluster_url(folder: Path) -> None:
    """The app's way to Redis, which holds the password: made again when that has changed."""
    url = f"redis://:{(folder / 'redis/password').read_text().strip()}@redis:6379/0"
    path = folder / CLUSTER_URL
    if not path.is_file() or path.read_text() != url:
        with _written(path, url, _OWN) as draft:
            draft.replace(path)


@contextlib.contextmanager
def _written(path: Path, text: str, mode: int) -> Iterator[Path]:
    """A file beside `path` with this text, on the disk; removed at the end, if it is still there."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(draft, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
