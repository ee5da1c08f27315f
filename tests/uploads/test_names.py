from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flet_fastapi.uploads.names import parts_of
from flet_fastapi.uploads.refusal import UploadRefused

TAKEN = {
    "f.png": ("f.png",),
    "/user/pictures/f.png": ("user", "pictures", "f.png"),
    "a//./b": ("a", "b"),
    "Grüße/日本語 🎉👩‍👩‍👧.txt": ("Grüße", "日本語 🎉👩‍👩‍👧.txt"),
    ".profile": (".profile",),
    "...a": ("...a",),
    "console.log": ("console.log",),
    "क्\u200cष.txt": ("क्\u200cष.txt",),
    "x" * 255: ("x" * 255,),
}
REFUSED = [
    "", "/", ".", "./", "a/.", "..", "../f", "a/../f", "/..", "a/..", "... ", ".. ", ". .", "a/", "a\\b", "..\\f",
    "a\0b", "a\nb", "a\x7f", "a\x85", "a\u2028b", "\ud800", "photo\u202egpj.exe", "con", "CON.txt", "a/nul", "aux .c",
    "com1", "LPT9.log", "COM¹", "conin$", "x" * 256, "ü" * 128, "a/" * 40 + "f", "abc/" * 300 + "f", ".flet-upload-1-x",
    "12:30.png", "c:f", "f.", "f ", "a./f", "a /f", "f\u200b", "\ufefff", "f\u00ad.txt", "\u2060f",
]  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_name_leads_below_the_upload_directory(name: str) -> None:
    assert parts_of(name) == TAKEN[name]


@pytest.mark.parametrize("name", REFUSED)
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(UploadRefused) as refused:
        parts_of(name)
    assert (refused.value.error, refused.value.status_code) == ("bad_name", 400)


@given(st.text() | st.text("./\\ \0a", max_size=20))
def test_no_name_leads_elsewhere(name: str) -> None:
    try:
        parts = parts_of(name)
    except UploadRefused:
        return
    assert parts
    assert not {"", ".", ".."} & set(parts)
    assert all(len(part.encode()) <= 255 and "/" not in part and "\0" not in part for part in parts)
