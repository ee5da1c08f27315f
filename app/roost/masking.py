"""The last line of defence: what is or looks like a secret does not get into a log line.

Who logs leaves secrets out; this catches what was overlooked, in the text of exceptions and of other libraries too.
It would rather hide a harmless value than show one that opens something. All patterns take linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from typing import Any

MASK = "***"
MAX_NAME = 100

# Parts of names whose values are secrets, wherever they stand in the name.
_PARTS = (
    r"pass[-_]?(?:word|wd|phrase|code)|passwd|pwd|secret|token|cookie|authori[sz]ation|credential|signature|jwt"
    r"|api[-_]?key|(?:access|account|auth|private|signing|encryption|shared|storage|master)[-_]?key|csrf|xsrf"
    r"|session[-_]?(?:id|key)|x-amz-[a-z-]{1,40}"
)
# Whole names that are secrets in a query, and often something harmless elsewhere.
_WHOLE = r"code|state|sig|nonce|verifier|code[-_]verifier|auth|sid|pin|otp"
_NAME = re.compile(_PARTS, re.IGNORECASE)
_DOUBTFUL_NAME = re.compile(_WHOLE, re.IGNORECASE)
_QUERY_NAME = re.compile(r"(?:raw_|url_)?query(?:_string|_params)?|form|form_data", re.IGNORECASE)
# Numbers under such a name are secrets; under others (`tokens`, `cookies`) they are counts.
_NUMBER_NAME = re.compile(r"pass|pwd|secret|\bpin\b|\botp\b|token$", re.IGNORECASE)

# What says that there is no secret.
_NOTHING = frozenset(
    "none null nil true false missing expired invalid unknown absent empty required unset given set".split()
) | {"", MASK, "-", "...", "…"}

# A value after its name: quoted, in brackets, or up to the next separator.
_QUOTED = r"""\\*b?"(?:[^"\\]|\\.)*+"?|\\*b?'(?:[^'\\]|\\.)*+'?|\\+["'][^"'\\]*+"""
_BRACKETED = r"\{[^{}]*+\}?|\[[^\[\]]*+\]?|\([^()]*+\)?"
_BARE = r"""(?:(?:bearer|basic|digest|negotiate|token)\s{1,4})?[^\s,;&"'<>()\[\]{}]++"""
_EQUALS = r"""(?:["'\\]{0,4}\s{0,4}(?:=>|[:=]|%3d)\s{0,4}|\\?["']\s{0,4},\s{0,4})"""
_VALUE = f"(?:{_QUOTED}|{_BRACKETED}|{_BARE})"

_HEADER_LINE = re.compile(
    r"\b((?:set-|proxy-)?(?:cookie|authorization)s?)(\s{0,4}:\s{0,4})(?![\s\"'({\[])[^\r\n\"']++", re.IGNORECASE
)
_NAMED = re.compile(f"((?:{_PARTS})[\\w.\\-]{{0,40}}+)({_EQUALS})({_VALUE})", re.IGNORECASE)
_DOUBTFUL = re.compile(f"(?<![A-Za-z0-9])({_WHOLE})({_EQUALS})({_VALUE})", re.IGNORECASE)
_QUERY = re.compile(r"""(\?|%3f)([^\s"<>]++)""", re.IGNORECASE)
_USER_INFO = re.compile(r"""(?<=://)(?:[^\s/?#"'<>@]{0,512}+@)++""")
# Passwords in the URLs of stores are often written without the escapes that they need.
_STORE_USER_INFO = re.compile(
    r"""\b((?:redis|rediss|valkey|valkeys|postgres|postgresql|mysql|mariadb|mongodb|amqp|amqps)(?:\+\w{1,20})?://)"""
    r"""[^\s"'<>]{0,512}@""",
    re.IGNORECASE,
)
_BARE_USER_INFO = re.compile(r"(?<![\w.-])([\w.-]{0,64}):[^\s:@/\"'<>]{3,128}@(?=[\w.\[-])")
_PEM = re.compile(r"-----BEGIN ([A-Z ]{0,30}PRIVATE KEY)-----(?:(?!-----END)[\s\S])*+(?:-----END[A-Z ]{0,40}-----)?")
_SCHEME = re.compile(r"\b(bearer|basic|digest|negotiate)(\s{1,4})([A-Za-z0-9._~+/=:-]{6,})", re.IGNORECASE)
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:eyJ[\w-]{4,}(?:\.[\w-]*){1,4}|(?:AKIA|ASIA)[0-9A-Z]{12,}|gh[oprsu]_\w{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{12,}|[sprw]k_(?:live|test)_\w{8,}|sk-[\w-]{16,}|whsec_[\w+/=]{8,}|xox[a-z]-[\w-]{8,}|AIza[\w-]{20,}"
    r"|ya29\.[\w-]{8,}|GOCSPX-[\w-]{8,}|npm_\w{16,}|pypi-[\w-]{16,}|hf_\w{16,}|dop_v1_\w{16,}|SG\.[\w-]{8,}\.[\w-]{8,})"
)
_RUN = re.compile(r"[A-Za-z0-9_~+=-]{20,}")
_HEX = re.compile(r"[0-9a-fA-F]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# What none of the patterns can match in, most texts, costs one search.
_SUSPECT = re.compile(r"[=:?@%]|[\"'],|-----BEGIN|[A-Za-z0-9_~+=.-]{16}|(?i:bearer|basic|digest|negotiate)\s")

# Names of fields that are remembered; those of a program are some hundreds.
_MAX_NAMES = 1_000

# Below this, hexadecimal text is a short hash or a digest's beginning; 32 digits are a key of 128 bits.
_HEX_SECRET, _HEX_SHOWN = 32, 8
# Names of classes and functions have longer words.
_WORD_LENGTH = 3.4
# 128 and 256 bits as the library and `secrets.token_urlsafe` write them: of these hardly one may be overlooked.
_ID_LENGTHS, _WORD_LENGTH_OF_IDS = (22, 43), 5.0


class Masks:
    """Masks secrets in texts; those in `known` whatever they look like."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        # shorter ones would hide half of every line
        worth = sorted({secret for secret in known if len(secret) >= 6}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, worth))) if worth else None

    def name(self, name: str) -> str:
        """The name of a field, which may come from outside."""
        plain = self._names.get(name)
        if plain is None:
            plain = self.text(name[:MAX_NAME], ids=True)
            if len(self._names) < _MAX_NAMES and len(name) <= MAX_NAME:
                self._names[name] = plain
        return plain

    def text(self, text: str, *, ids: bool = False) -> str:
        """`text` without what looks like a secret; with `ids`, names that were made at random are left."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if _SUSPECT.search(text) is None:
            return text
        text = _PEM.sub(MASK, text)
        if "@" in text:
            text = _STORE_USER_INFO.sub(rf"\1{MASK}@", text)
            text = _USER_INFO.sub(f"{MASK}@", text)
            text = _BARE_USER_INFO.sub(rf"\1:{MASK}@", text)
        text = _QUERY.sub(_masked_query, text)
        text = _HEADER_LINE.sub(rf"\1\2{MASK}", text)
        text = _NAMED.sub(_masked_value, text)
        text = _DOUBTFUL.sub(_masked_doubtful, text)
        text = _SCHEME.sub(_masked_scheme, text)
        text = _KNOWN.sub(MASK, text)
        return text if ids else _RUN.sub(_masked_run, text)


class Hiding(Enum):
    """What the name of a field tells of its value."""

    NOTHING = auto()
    SECRET = auto()
    SECRET_OR_COUNT = auto()  # `tokens`
    DOUBTFUL = auto()  # `code`


@lru_cache(1024)
def hiding(name: str) -> Hiding:
    """Whether a value is a secret because of its name alone; `hides` knows the value, too."""
    if _QUERY_NAME.fullmatch(name) or _NAME.search(name):
        return Hiding.SECRET if _NUMBER_NAME.search(name) else Hiding.SECRET_OR_COUNT
    return Hiding.DOUBTFUL if _DOUBTFUL_NAME.fullmatch(name) else Hiding.NOTHING


def hides(by_name: Hiding, value: Any) -> bool:
    """Whether a value is a secret, under a name that tells so much."""
    if by_name is Hiding.NOTHING or value is None or isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return by_name is Hiding.SECRET
    if by_name is Hiding.DOUBTFUL:
        return isinstance(value, str | bytes) and _is_doubtful(_decoded(value))
    return not (isinstance(value, str | bytes) and _says_nothing(_decoded(value)))


def _decoded(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _says_nothing(value: str) -> bool:
    return value.strip("\"'\\ ").lower() in _NOTHING


def _masked_value(match: re.Match[str]) -> str:
    name, equals, value = match.groups()
    return match[0] if _says_nothing(value) else f"{name}{equals}{_requoted(value)}"


def _masked_doubtful(match: re.Match[str]) -> str:
    name, equals, value = match.groups()
    return f"{name}{equals}{_requoted(value)}" if _is_doubtful(value.strip("\"'\\")) else match[0]


def _is_doubtful(value: str) -> bool:
    """Whether a `code` or a `state` is rather OAuth's than a number or a word."""
    plain = value.isdigit() or (value.isalpha() and (value.islower() or value.isupper()))
    return len(value) >= 20 or (len(value) >= 6 and not plain and " " not in value)


def _requoted(value: str) -> str:
    opening = re.match(r"\\*b?[\"']", value)
    if opening is None:
        return MASK
    closing = opening[0].removeprefix("b")
    return f"{opening[0]}{MASK}{closing if value.endswith(closing) else ''}"


def _masked_query(match: re.Match[str]) -> str:
    mark, query = match.groups()
    before = match.string[max(0, match.start() - 300) : match.start()]
    place = before.rsplit(None, 1)[-1] if before and not before[-1].isspace() else ""
    return f"{mark}{MASK}" if "=" in query or "%3d" in query.lower() or "/" in place else match[0]


def _masked_scheme(match: re.Match[str]) -> str:
    scheme, space, value = match.groups()
    word = value.rstrip(".:").isalpha() and (value.islower() or value.istitle())
    return match[0] if word else f"{scheme}{space}{MASK}"


def _masked_run(match: re.Match[str]) -> str:
    run = match[0]
    if _UUID.fullmatch(run):
        return run
    # a name may stand before it: `key-3f7a…`, `name=3f7a…`
    if "=" in run.rstrip("="):
        return "=".join(part if len(part) < 20 else _masked_part(part) for part in run.split("="))
    return _masked_part(run)


def _masked_part(run: str) -> str:
    for part in re.split(r"[-_~+]", run):
        if len(part) >= _HEX_SECRET and _HEX.fullmatch(part):
            run = run.replace(part, part[:_HEX_SHOWN] + MASK)
    return MASK if _is_random(run) else run


def _is_random(run: str) -> bool:
    """Whether letters of both cases and digits follow each other as by chance: they make no words, not even short ones.

    Of 120 random bits in base64 one in 200 looks like words; of 128 bits one in 10,000, of 256 none.
    """
    words = _WORD.findall(run)
    length = sum(map(len, words))
    if length >= 16 and any(c.isupper() for c in run) and any(c.islower() for c in run):
        return length < (_WORD_LENGTH_OF_IDS if len(run) in _ID_LENGTHS else _WORD_LENGTH) * len(words)
    return any(_is_random_lower(part) for part in re.split(r"[-_~+=]", run))


def _is_random_lower(part: str) -> bool:
    words = _WORD.findall(part)
    return len(part) >= 20 and len(words) > 4 and len(part) < 3 * len(words) and not _HEX.fullmatch(part)
