# SPDX-License-Identifier: Apache-2.0
"""Where the key comes from, and how it is kept out of every text."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

from pizza.errors import AuthError, ConfigError

KEY_VARIABLE = "OPENAI_API_KEY"

PLACEHOLDER = "no-key"
"""Sent to servers other than OpenAI's when there is no key: most ignore it, none may lack it."""

_MARK = "[key]"
_BEARER = re.compile(r"\bBearer\s+\S+")
_RUN = re.compile(r"[\w\-*.…]+")  # what a key, or a shortened one, consists of
_PREFIX = re.compile(r"(?:sk|rk|gsk|hf|xai|sess)[-_].{6}")
_SHOWN = 6  # servers echo the beginning or the end of a key; this much of either gives it away


class KeyRing:
    """The key (or the function that gives it), and every key that was ever sent.

    Args:
        source: A key, a function that returns one (or an awaitable of one), or ``None`` for the
            environment's ``OPENAI_API_KEY``.
        placeholder: Whether a server without keys is being talked to.
    """

    __slots__ = ("_fixed", "_function", "_placeholder", "_seen")

    def __init__(self, source: Any, *, placeholder: bool) -> None:
        self._fixed: str | None = None
        self._function: Callable[[], str | Awaitable[str]] | None = None
        self._placeholder = placeholder
        self._seen: dict[str, tuple[str, str]] = {}
        if source is None:
            source = os.environ.get(KEY_VARIABLE)
        if callable(source):
            self._function = source
        elif source is None or isinstance(source, str):
            self._fixed = (source or "").strip() or None
            if self._fixed:
                self._note(self._fixed)
        else:
            raise ConfigError(
                f"api_key is a str, a function that returns one, or None, "
                f"not {type(source).__name__}."
            )

    def __repr__(self) -> str:
        return f"KeyRing(present={self.present})"

    @property
    def present(self) -> bool:
        """Whether there is a key or a function that gives one."""
        return self._fixed is not None or self._function is not None

    @property
    def fixed(self) -> str | None:
        """The key, when it is known and stays the same."""
        return None if self._fixed is None else _usable(self._fixed)

    async def get(self) -> str:
        """The key for the next request.

        Raises:
            AuthError: There is none, or the function failed.
        """
        if self._function is None:
            if self._fixed is None:
                if self._placeholder:
                    return PLACEHOLDER
                raise AuthError(
                    f"there is no API key: set the environment variable {KEY_VARIABLE}, or pass "
                    "api_key=. A server of your own needs none: name it with base_url= "
                    "(--base-url)."
                )
            return _usable(self._fixed)
        failure: str | None = None
        key: Any = None
        try:
            key = self._function()
            if inspect.isawaitable(key):
                key = await key
        except Exception as error:
            # Only the type: its text may well hold what the function looked up.
            failure = type(error).__name__
        if failure is not None:
            raise AuthError(f"the function given as api_key raised {failure}.")
        if not isinstance(key, str) or not key.strip():
            raise AuthError(
                f"the function given as api_key returned {type(key).__name__}, not a key."
            )
        key = key.strip()
        self._note(key)
        return _usable(key)

    def scrub(self, text: str) -> str:
        """``text`` without the key, parts of it, and whatever looks like one."""
        for key in self._seen:
            if len(key) >= 4:
                text = text.replace(key, _MARK)
        # Run by run: one pattern for all of it would take quadratic time on a hostile message.
        return _RUN.sub(self._replace, _BEARER.sub(_MARK, text))

    def _replace(self, match: re.Match[str]) -> str:
        run = match[0]
        secret = (
            "***" in run
            or _PREFIX.match(run)
            or any(head in run or tail in run for head, tail in self._seen.values() if head)
        )
        return _MARK if secret else run

    def _note(self, key: str) -> None:
        if key in self._seen:
            return
        if len(self._seen) >= 64:  # short-lived tokens: the old ones have expired
            self._seen.pop(next(iter(self._seen)))
        long = len(key) >= 2 * _SHOWN  # parts of a short one might be ordinary words
        self._seen[key] = (key[:_SHOWN], key[-_SHOWN:]) if long else ("", "")


def _usable(key: str) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AuthError(
            "the API key holds white space or characters outside of ASCII: it was not copied "
            "correctly."
        )
    return key
