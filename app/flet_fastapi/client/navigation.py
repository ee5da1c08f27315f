"""Which requests for an unknown path are a person going to a page, and so get the app."""

from __future__ import annotations

from collections.abc import Mapping

# A list of our own: by the system's MIME table `/users/ann@example.com` may name a program.
FILE_EXTENSIONS = frozenset(
    """
    7z aac apk atom avi avif bak bin bmp bz2 cfg conf css csv dart data dat db dll doc docx env eot exe flac frag
    gif gz htm html ico ini jar jpeg jpg js json jsx log m3u8 m4a m4v map md mjs mkv mov mp3 mp4 mpeg mpg odt ogg ogv
    old opus otf pdf php pkl png ppt pptx ps1 py pyc rar rss rtf sh so sql sqlite svg symbols swf tar tgz tif tiff
    toml ts tsx ttf txt wasm wav webm webmanifest webp woff woff2 xhtml xls xlsx xml xz yaml yml
    zip zst asp aspx jsp cgi
    """.split()
)


def is_navigation(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a GET or HEAD for `path` (below the app) asks for a page rather than for a file or an API.

    Browsers say so themselves in `Sec-Fetch-Mode` (W3C Fetch Metadata); older ones by accepting `text/html`. A
    missing script, image or `/api/...` is never a page, whoever asks.
    """
    if not _is_page_path(path):
        return False
    if headers.get("sec-fetch-mode", "navigate").strip().lower() != "navigate":
        return False
    return accepts_html(headers.get("accept", ""))


def accepts_html(accept: str) -> bool:
    """Whether `Accept` names HTML; `*/*` does not: that is what scripts, images and command lines send."""
    for item in accept.lower().split(","):
        media_type, _, parameters = item.partition(";")
        if media_type.strip() in ("text/html", "application/xhtml+xml"):
            return not any(_is_zero(parameter) for parameter in parameters.split(";"))
    return False


def _is_page_path(path: str) -> bool:
    names = path.split("/")[1:]
    # `..` and hidden names are nobody's route, see place.segments(); `*` is no path at all (RFC 9112, 3.2.4)
    if not names or "\0" in path or any(name.startswith(".") for name in names):
        return False
    if names[0].lower() == "api" and len(names) > 1:
        return False
    extension = names[-1].rpartition(".")[2] if "." in names[-1] else ""
    return extension.lower() not in FILE_EXTENSIONS


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    try:
        return name.strip() == "q" and float(value) == 0
    except ValueError:
        return False
