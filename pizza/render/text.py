# SPDX-License-Identifier: Apache-2.0
"""Making text that somebody else wrote harmless to show.

Prompts, answers, plugin messages and server errors may hold terminal escapes (which move the
cursor, set the title, or write to the clipboard) and direction controls (which make a line read
differently from what it is). Both are shown as escapes instead of being obeyed.
"""

from __future__ import annotations

import unicodedata

# Joiners shape emoji and several scripts and hide nothing: they are the only format characters
# that stay.
_JOINERS = frozenset("\u200c\u200d")
# Cc controls, Cf format (direction marks, invisible tags), Cs lone surrogates, Zl and Zp separators
# (a terminal may or may not break the line there).
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def harmless(text: str, *, keep_newlines: bool = True) -> str:
    r"""``text`` with everything that a terminal could obey written as an escape.

    Args:
        text: Any text.
        keep_newlines: Leave ``\n`` as it is; else it is written as ``\n`` like the others.

    Example:
        >>> harmless("plain \x1b[31mred\u202e")
        'plain \\x1b[31mred\\u202e'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep_newlines) for character in text)


def _shown(character: str, keep_newlines: bool) -> str:
    if character == "\n" and keep_newlines:
        return character
    if character == "\t":
        return "    " if keep_newlines else "\\t"
    if character in _JOINERS or unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def one_line(text: str, limit: int = 80) -> str:
    r"""``text`` on one line, harmless, and cut in the middle when it is longer than ``limit``.

    Example:
        >>> one_line("first\nsecond")
        'first\\nsecond'
    """
    shown = harmless(text, keep_newlines=False)
    if len(shown) <= limit:
        return shown
    head = (limit - 3) * 2 // 3
    return f"{shown[:head]}...{shown[len(shown) - (limit - 3 - head) :]}"


def plural(count: int, word: str, plural_word: str = "") -> str:
    """``"1 call"``, ``"2 calls"``, ``"12,345 calls"``."""
    return f"{count:,} {word if count == 1 else plural_word or word + 's'}"
