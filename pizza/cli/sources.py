# SPDX-License-Identifier: Apache-2.0
"""Where the prompt comes from: the argument, a file, standard input, or a chat in a JSON file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pizza.errors import ConfigError
from pizza.prompt import Prompt

_HOW = (
    'give it in quotes (pizza attribute "..."), as --file PATH, as --messages CHAT.json, or on '
    "standard input (pizza attribute - < PATH)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the command line says about the prompt.

    Attributes:
        argument: The prompt itself, ``"-"`` for standard input, or ``None``.
        file: A text file, ``-`` for standard input.
        messages: A JSON file with chat messages, ``-`` for standard input.
        fix: Regular expressions whose matches are never perturbed.
        fix_roles: Chat roles whose messages are never perturbed.
        perturb_marks: Whether "Q:", "A:" and chat marks are perturbed too.
    """

    argument: str | None = None
    file: Path | None = None
    messages: Path | None = None
    fix: Sequence[str] = ()
    fix_roles: Sequence[str] = ()
    perturb_marks: bool = False

    def read(self) -> Prompt:
        """The prompt.

        Raises:
            ConfigError: There is none or more than one, or it cannot be read.
        """
        given = [v for v in (self.argument, self.file, self.messages) if v is not None]
        if len(given) > 1:
            raise ConfigError(f"the prompt was given {len(given)} times: {_HOW}")
        if not given and sys.stdin.isatty():
            raise ConfigError(f"there is no prompt: {_HOW}")
        if self.fix_roles and self.messages is None:
            raise ConfigError("--fix-role is for chats: it needs --messages CHAT.json.")
        if self.messages is not None:
            prompt = Prompt.chat(
                _chat(_text_of(self.messages), str(self.messages)),
                fixed_roles=self.fix_roles,
                keep_marks_fixed=not self.perturb_marks,
            )
        else:
            prompt = Prompt.from_text(self._plain(), keep_marks_fixed=not self.perturb_marks)
        return self._fixed(prompt)

    def _plain(self) -> str:
        if self.argument is not None and self.argument != "-":
            return self.argument
        text = _text_of(self.file if self.file is not None else Path("-"))
        # A line end before the end of a file belongs to the file, not to the prompt: `echo` and
        # editors add it.
        return text.rstrip("\r\n") or text

    def _fixed(self, prompt: Prompt) -> Prompt:
        for pattern in self.fix:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"--fix {pattern!r} is not a regular expression: {error}."
                ) from error
            fixed = prompt.fix(pattern)
            if fixed == prompt:
                raise ConfigError(f"--fix {pattern!r} matches nothing in the prompt.")
            prompt = fixed
        return prompt


def _text_of(path: Path) -> str:
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror or error}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name} is not UTF-8 text (byte {error.start}). Convert it first, for example: "
            "iconv -f LATIN1 -t UTF-8 FILE"
        ) from error


def _chat(text: str, name: str) -> Sequence[Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON: {error}.") from error
    if isinstance(data, dict):
        data = data.get("messages")
    if not isinstance(data, list) or not data:
        raise ConfigError(
            f'{name} holds no chat: expected [{{"role": "user", "content": "..."}}, ...], or an '
            'object with such a list as "messages".'
        )
    return data
