# SPDX-License-Identifier: Apache-2.0
"""OpenAI's tokenizers through tiktoken, with spans, without surprises.

tiktoken keeps its vocabularies ("ranks") in a cache directory and otherwise downloads them with no
time limit. Here a download has a deadline, a failure is remembered for the process, and the error
says which file is missing and where it is looked for. tiktoken itself is imported on first use.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pizza.errors import EncodingUnavailableError

if TYPE_CHECKING:
    import tiktoken

_log = logging.getLogger("pizza.tokenizers")

FALLBACK_ENCODING = "o200k_base"
"""Used for models that tiktoken does not know: that of OpenAI's models since gpt-4o."""

FETCH_DEADLINE_S = 10.0
_DISK_DEADLINE_S = 60.0  # reading and parsing takes about a second; a busy machine needs longer

_HOST = "https://openaipublic.blob.core.windows.net/encodings/"
_FILES = {
    "o200k_base": "o200k_base.tiktoken",
    "o200k_harmony": "o200k_base.tiktoken",
    "cl100k_base": "cl100k_base.tiktoken",
    "p50k_base": "p50k_base.tiktoken",
    "p50k_edit": "p50k_base.tiktoken",
    "r50k_base": "r50k_base.tiktoken",
}

_lock = threading.Lock()
_loaded: dict[str, TiktokenTokenizer] = {}
_failed: dict[str, str] = {}
_warned: set[str] = set()


class TiktokenTokenizer:
    """One of tiktoken's encodings.

    Args:
        encoding: The loaded encoding.

    Attributes:
        name: The encoding's name, e.g. ``"o200k_base"``.
    """

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self.name = encoding.name
        self._encoding = encoding

    def __repr__(self) -> str:
        return f"TiktokenTokenizer({self.name!r})"

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Half-open code-point spans of the tokens: ordered, disjoint, covering all of ``text``.

        Tokens that cut a character are merged with their neighbours, so there may be fewer spans
        than `count` tokens.
        """
        pieces = self._encoding.decode_tokens_bytes(self._encoding.encode_ordinary(text))
        spans: list[tuple[int, int]] = []
        start = end = 0
        for index, piece in enumerate(pieces):
            # In UTF-8 every character has exactly one byte that is not a continuation byte.
            end += len(piece) - _continuations(piece)
            following = pieces[index + 1] if index + 1 < len(pieces) else b""
            if following and following[0] & 0xC0 == 0x80:
                continue
            spans.append((start, end))
            start = end
        return spans

    def count(self, text: str) -> int:
        """Number of tokens of ``text``."""
        return len(self._encoding.encode_ordinary(text))


def encoding_for(model: str) -> TiktokenTokenizer:
    """The tokenizer of a model, or of an encoding named directly.

    A model that tiktoken does not know gets `FALLBACK_ENCODING`, with one warning in the log.

    Raises:
        EncodingUnavailableError: The ranks are not on this machine and cannot be fetched.
    """
    name = _encoding_name(model)
    if name is None:
        name = FALLBACK_ENCODING
        if model not in _warned:
            _warned.add(model)
            _log.warning("tiktoken does not know the model %r: using %s.", model, name)
    found = _loaded.get(name)
    if found is not None:
        return found
    with _lock:
        if name not in _loaded:
            _loaded[name] = TiktokenTokenizer(_load(name))
        return _loaded[name]


def is_known(model: str) -> bool:
    """Whether tiktoken has the encoding of this model itself, not just a likely one."""
    return _encoding_name(model) is not None


def is_cached(model: str) -> bool:
    """Whether the encoding of this model can be loaded without network access."""
    name = _encoding_name(model) or FALLBACK_ENCODING
    if name in _loaded:
        return True
    path = ranks_path(name)
    return path is not None and path.is_file()


def ranks_path(encoding: str) -> Path | None:
    """Where tiktoken looks for an encoding's ranks; ``None`` when its cache is switched off."""
    folder = _cache_folder()
    url = _url(encoding)
    if folder is None or url is None:
        return None
    return folder / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()


def _cache_folder() -> Path | None:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            value = os.environ[variable]
            return Path(value) if value else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def _url(encoding: str) -> str | None:
    return _HOST + _FILES[encoding] if encoding in _FILES else None


def _encoding_name(model: str) -> str | None:
    if model in _FILES:
        return model
    from tiktoken.model import encoding_name_for_model

    try:
        return encoding_name_for_model(model)
    except KeyError:
        return None


def _load(name: str) -> tiktoken.Encoding:
    path = ranks_path(name)
    on_disk = path is not None and path.is_file()
    if name in _failed and not on_disk:
        raise EncodingUnavailableError(_failed[name])
    result: list[tiktoken.Encoding] = []
    reason: list[str] = []

    def work() -> None:
        import tiktoken

        try:
            result.append(tiktoken.get_encoding(name))
        except Exception as error:
            reason.append(f"{type(error).__name__}: {error}"[:300])

    # A daemon: tiktoken's download has no time limit, and must not keep the program alive.
    thread = threading.Thread(target=work, name=f"tiktoken-{name}", daemon=True)
    thread.start()
    thread.join(FETCH_DEADLINE_S)
    if on_disk and path is not None and path.is_file():
        # Not a download (tiktoken removes a damaged file before it fetches another), only slow.
        thread.join(_DISK_DEADLINE_S)
    if result:
        _failed.pop(name, None)
        return result[0]
    why = reason[0] if reason else f"no answer within {FETCH_DEADLINE_S:g} s"
    _failed[name] = _unavailable(name, path, why)
    raise EncodingUnavailableError(_failed[name])


def _unavailable(name: str, path: Path | None, why: str) -> str:
    url = _url(name)
    if path is None:
        place = "tiktoken's cache is switched off (TIKTOKEN_CACHE_DIR is empty)"
    else:
        place = f"the file {path.name} is not usable in {path.parent}"
    return (
        f"the encoding {name!r} cannot be loaded: {place}, and fetching {url or name} failed "
        f"({why}). On a machine with network access run: TIKTOKEN_CACHE_DIR=ranks python -c "
        f"\"import tiktoken; tiktoken.get_encoding('{name}')\". Then copy the folder 'ranks' here "
        "and set TIKTOKEN_CACHE_DIR to it. Units other than tokens (word, sentence) need no "
        "encoding."
    )


_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


def _continuations(piece: bytes) -> int:
    return len(piece) - len(piece.translate(None, _CONTINUATION_BYTES))


_PIECES = re.compile(
    r"(?P<word>[A-Z]?[a-z]+)|(?P<capitals>[A-Z]+)|(?P<digits>[0-9]+)|(?P<space>\s+)"
    r"|(?P<mark>[!-/:-@\[-`{-~]+)|(?P<european>[\u00c0-\u058f]+)|(?P<other>.)",
    re.DOTALL,
)


def estimate_tokens(text: str) -> int:
    """About how many tokens ``text`` has, without any vocabulary; meant to be rather too high.

    English prose and code come out 5 to 30 % above o200k_base; other scripts and emoji more. For
    limits and budgets, where too low an estimate is what hurts.
    """
    total = 0.0
    for match in _PIECES.finditer(text):
        length = match.end() - match.start()
        match match.lastgroup:
            case "word":
                total += 1.08 + max(0, length - 7) / 5
            case "capitals":
                total += 1 + max(0, length - 2) / 3
            case "digits":
                total += -(-length // 3)
            case "space":
                # One space belongs to the next word.
                if length > 1 or match[0] == "\n":
                    total += 1 + length / 40
            case "mark":
                total += length if length < 3 else 1 + length / 2.5
            case "european":
                total += 0.3 + length / 1.8
            case _:
                total += 1.2 if match[0] < "\U00010000" else 3.0
    return int(total * 1.02) + 1
