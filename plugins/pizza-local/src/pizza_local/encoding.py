# SPDX-License-Identifier: Apache-2.0
"""Prompts as token ids, with the place in the prompt that every token comes from."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pizza.errors import BadRequestError, ConfigError
from pizza.prompt import FixedSpan, Prompt
from pizza_local.places import Place, framed, marked

Origin = Literal["prompt", "template", "special", "output"]

_log = logging.getLogger("pizza.local")

_CONTEXT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class InputToken:
    """One position of what the model reads.

    Attributes:
        id: Its id in the vocabulary.
        text: Its text.
        origin: ``"prompt"`` (text of the prompt), ``"template"`` (text that the chat template
            adds), ``"special"`` (a special token, whoever wrote it), ``"output"`` (an output token
            that stands before the one that is explained).
        message: The message that it is part of, or -1.
        start, end: Half-open code-point span in that message.
    """

    id: int
    text: str
    origin: Origin
    message: int = -1
    start: int = 0
    end: int = 0


class Encoding:
    """A prompt as the model reads it.

    A round of perturbed prompts has a hundred thousand tokens, and only their ids are needed to
    score them: where they come from is found out when somebody asks. (As many objects would set off
    collections of garbage that hold up the event loop.)

    Attributes:
        ids: Token ids.
        extra: Further inputs of the model, one number per token (segment ids).

    Args:
        ids: Token ids.
        find: Finds the tokens.
        extra: Further inputs.
    """

    __slots__ = ("_find", "_tokens", "extra", "ids")

    def __init__(
        self,
        *,
        ids: tuple[int, ...],
        find: Callable[[], Sequence[InputToken]],
        extra: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.ids = ids
        self.extra = extra or {}
        self._find = find
        self._tokens: tuple[InputToken, ...] | None = None

    @property
    def tokens(self) -> tuple[InputToken, ...]:
        """The same as `ids`, with where they come from.

        Raises:
            BadRequestError: The template changes messages, so that they cannot be found.
        """
        if self._tokens is None:
            self._tokens = tuple(self._find())
        return self._tokens


class Encoder:
    """Prompts to token ids and back, for one tokenizer. Safe to share between threads.

    Args:
        tokenizer: A fast tokenizer of transformers.
        chat: Whether prompts go through the chat template: ``None`` = where there is one.
        who: The model's name, for messages.

    Raises:
        ConfigError: The tokenizer gives no offsets, or a chat template is wanted and missing.
    """

    def __init__(self, tokenizer: Any, *, chat: bool | None = None, who: str = "the model") -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"the tokenizer of {who} is {type(tokenizer).__name__}, which does not say where "
                "its tokens stand in a text. Use a fast tokenizer (transformers' AutoTokenizer "
                "with use_fast=True)."
            )
        template = getattr(tokenizer, "chat_template", None)
        if chat and not template:
            raise ConfigError(
                f"the tokenizer of {who} has no chat template: leave out chat=True, or set "
                "tokenizer.chat_template."
            )
        self.tokenizer = tokenizer
        self._chat = bool(template) if chat is None else chat
        self._who = who
        self.name = who
        self._lock = threading.Lock()
        self._pieces: dict[int, str] = {}
        self._output: tuple[tuple[int, ...], tuple[str, ...]] = ((), ())
        self.special: frozenset[int] = frozenset(tokenizer.all_special_ids) | frozenset(
            index for index, added in tokenizer.added_tokens_decoder.items() if added.special
        )

    def _call(self, text: str, **options: Any) -> Any:
        # Tokenizers of transformers change their settings while they work: one caller at a time.
        with self._lock:
            return self.tokenizer(text, **options)

    # --- prompts ------------------------------------------------------------------------------

    def encode(self, prompt: Prompt) -> Encoding:
        """The ids of a prompt; the chat template and special tokens are applied exactly once.

        Raises:
            BadRequestError: The template cannot be applied, or nothing is left to read.
        """
        text = self._text(prompt)
        encoded = self._call(text, add_special_tokens=not self._chat)
        ids = tuple(encoded["input_ids"])
        if not ids:
            raise BadRequestError(
                f"the prompt has no tokens for {self._who}: give it a text.", backend=self._who
            )
        extra = {}
        if "token_type_ids" in encoded:
            extra["token_type_ids"] = tuple(encoded["token_type_ids"])
        return Encoding(ids=ids, find=lambda: self._located(prompt, text), extra=extra)

    def _text(self, prompt: Prompt) -> str:
        if self._chat:
            return self._render(prompt, [message.text for message in prompt.messages])
        if prompt.kind == "chat" and len(prompt.messages) > 1:
            raise BadRequestError(
                f"{self._who} has no chat template, and the prompt is a chat of "
                f"{len(prompt.messages)} messages. Give a plain text, or a tokenizer with a chat "
                "template.",
                backend=self._who,
            )
        return prompt.messages[0].text

    def _located(self, prompt: Prompt, text: str) -> list[InputToken]:
        """The tokens of what `_text` made of a prompt."""
        encoded = self._call(text, add_special_tokens=not self._chat, return_offsets_mapping=True)
        places = self._places(prompt, text)
        return [
            self._token(index, text, span, places)
            for index, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _places(self, prompt: Prompt, text: str) -> list[Place]:
        """Where the messages stand in the text."""
        if not self._chat:
            return [Place(message=0, at=0, start=0, length=len(text))]
        contents = [message.text for message in prompt.messages]
        try:
            frame = self._render(prompt, marked(contents))
        except BadRequestError:
            frame = ""
        return framed(text, frame, contents) or self._found(text, contents)

    def _render(self, prompt: Prompt, contents: Sequence[str]) -> str:
        messages = [
            {"role": message.role, "content": content}
            for message, content in zip(prompt.messages, contents, strict=True)
        ]
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        # Templates are programs of the model's authors: they raise what they like.
        except Exception as error:
            raise BadRequestError(
                f"the chat template of {self._who} refuses these messages (roles "
                f"{', '.join(m.role for m in prompt.messages)}): {error}",
                backend=self._who,
            ) from error
        return str(rendered)

    def _found(self, text: str, contents: Sequence[str]) -> list[Place]:
        """Where the messages stand in a template that changes with what they say.

        Only what stands there once is found: a token must not be taken for another message's.
        """
        places: list[Place] = []
        for index, content in enumerate(contents):
            stripped = content.strip()
            if not stripped:
                continue
            if text.count(stripped) != 1:
                raise BadRequestError(
                    f"the chat template of {self._who} changes message {index}, so its parts "
                    "cannot be found in what the model reads. Open the model with chat=false and "
                    "give the whole text.",
                    backend=self._who,
                )
            places.append(
                Place(
                    message=index,
                    at=text.index(stripped),
                    start=content.index(stripped),
                    length=len(stripped),
                )
            )
        return places

    def _token(
        self, index: int, text: str, span: tuple[int, int], places: Sequence[Place]
    ) -> InputToken:
        start, end = span
        special = index in self.special
        written = text[start:end] or str(self.tokenizer.convert_ids_to_tokens(index))
        for place in places:
            first, last = max(start, place.at), min(end, place.at + place.length)
            if first < last:
                return InputToken(
                    id=index,
                    text=written,
                    origin="special" if special else "prompt",
                    message=place.message,
                    start=first - place.at + place.start,
                    end=last - place.at + place.start,
                )
        return InputToken(id=index, text=written, origin="special" if special else "template")

    # --- targets ------------------------------------------------------------------------------

    def target(self, text: str) -> tuple[int, ...]:
        """The ids of a given output, appended to the prompt's ids as they are.

        Raises:
            BadRequestError: It has no tokens, or the vocabulary cannot say it.
        """
        ids = tuple(self._call(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise BadRequestError(
                f"the target {text!r} has no tokens for {self._who}: give a text that is not "
                "empty.",
                backend=self._who,
            )
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and self.tokenizer.unk_token not in text:
            raise BadRequestError(
                f"the vocabulary of {self._who} cannot say the target {text!r}: it reads back as "
                f"{self.decode(ids)!r}. Give a target in the model's vocabulary, or token ids "
                "(pizza.Target.tokens).",
                backend=self._who,
            )
        if _folded(self.decode(ids)) != _folded(text):
            _log.warning("the target %r reads back from its tokens as %r.", text, self.decode(ids))
        return ids

    def check_ids(self, ids: Sequence[int], size: int) -> tuple[int, ...]:
        """Token ids that a caller gave.

        Raises:
            BadRequestError: There are none, or one is not in the vocabulary.
        """
        bad = [index for index in ids if not 0 <= index < size]
        if bad or not ids:
            what = f"has the token id {bad[0]}" if bad else "has no tokens"
            raise BadRequestError(
                f"the target {what}; the vocabulary of {self._who} has ids from 0 to {size - 1}.",
                backend=self._who,
            )
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens included."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        r"""The text of each token of an output.

        A token that holds part of a character reads as its bytes, ``\xe6``, so that an output that
        was cut inside a character loses nothing. Joined, pieces are the decoded text, where each
        of them is a text by itself.
        """
        # The output that is explained is the same in every request of a round.
        last, known = self._output
        wanted = tuple(ids)
        if last != wanted:
            known = self._cut_up(wanted)
            self._output = wanted, known
        return known

    def _cut_up(self, ids: Sequence[int]) -> tuple[str, ...]:
        pieces: list[str] = []
        whole = 0
        """Tokens that are known to end where a character ends."""
        for position, index in enumerate(ids):
            # A few tokens of context are enough to know what white space belongs to a token.
            first = max(0, whole - _CONTEXT)
            before = self.decode(ids[first:whole])
            text = self.decode(ids[first : position + 1])
            complete = not text.endswith("\ufffd")
            own = text[len(before) :] if text.startswith(before) else ""
            if complete and whole == position and own and "\ufffd" not in own:
                pieces.append(own)
            else:
                pieces.append(self.piece(index))
            if complete:
                whole = position + 1
        return tuple(pieces)

    def piece(self, index: int) -> str:
        """The text of one token by itself."""
        # A round asks for thousands of alternatives, most of them over and over.
        known = self._pieces.get(index)
        if known is None:
            known = self._pieces[index] = self._piece(index)
        return known

    def _piece(self, index: int) -> str:
        text = self.decode([index])
        if text and "\ufffd" not in text:
            return text
        token = self.tokenizer.convert_ids_to_tokens(index)
        # Embedding tables are often longer than vocabularies.
        return f"<{index}>" if token is None else _bytes_of(str(token))

    # --- the vocabulary ---------------------------------------------------------------------

    def special_spans(self, prompt: Prompt) -> list[FixedSpan]:
        """Where a prompt's own text holds special tokens.

        Messages are looked at one by one, without a template: a prompt that the template refuses
        is refused later, with a better message.
        """
        spans: list[FixedSpan] = []
        for number, message in enumerate(prompt.messages):
            encoded = self._call(
                message.text, add_special_tokens=False, return_offsets_mapping=True
            )
            spans.extend(
                FixedSpan(message=number, start=start, end=end, reason="special token")
                for index, (start, end) in zip(
                    encoded["input_ids"], encoded["offset_mapping"], strict=True
                )
                if index in self.special
                and end > start
                # An unknown word is a word.
                and index != self.tokenizer.unk_token_id
            )
        return spans

    def vocabulary(self, size: int) -> list[str | None]:
        """The text of each id; ``None`` where it is only part of a character, or no token."""
        known = set(self.tokenizer.get_vocab().values())
        texts: list[str | None] = []
        for index in range(size):
            text = self.decode([index]) if index in known else "\ufffd"
            texts.append(None if "\ufffd" in text else text)
        return texts

    def fingerprint(self) -> str:
        """What the tokenizer's work depends on, as a text."""
        return (
            f"{self.tokenizer.backend_tokenizer.to_str()}{self._chat}{self.tokenizer.chat_template}"
        )

    # --- texts --------------------------------------------------------------------------------

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Code-point spans that tile ``text``; tokens that share a character are merged."""
        encoded = self._call(text, add_special_tokens=False, return_offsets_mapping=True)
        spans: list[tuple[int, int]] = []
        at = 0
        for start, end in encoded["offset_mapping"]:
            if end <= at:
                continue
            if start < at and spans:
                # Part of this token's first character is in the token before it.
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((at, end))
            at = end
        if at < len(text):
            spans = [*spans[:-1], (spans[-1][0], len(text))] if spans else [(0, len(text))]
        return spans

    def count(self, text: str) -> int:
        """Number of tokens of a text."""
        return len(self._call(text, add_special_tokens=False)["input_ids"])


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


def _bytes_of(token: str) -> str:
    r"""The bytes that a token of a byte-level vocabulary stands for, as ``\xe6``."""
    if token.startswith("<0x") and token.endswith(">"):
        return rf"\x{token[3:-1].lower()}"
    data = bytes(_ALPHABET[c] for c in token if c in _ALPHABET)
    return data.decode("utf-8", "backslashreplace") if data else token


def _byte_alphabet() -> dict[str, int]:
    """Byte-level vocabularies write the 68 bytes that cannot be printed from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet


_ALPHABET = _byte_alphabet()
