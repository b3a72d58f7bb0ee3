# SPDX-License-Identifier: Apache-2.0
"""Prompts and the units they are cut into.

A `Prompt` is one or more messages. All positions are half-open spans of Unicode code points
within one message (Python string indices). Parts marked *fixed* are never perturbed.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pizza.errors import ConfigError

Kind = Literal["text", "chat", "template"]

_ROLES = ("system", "developer", "user", "assistant", "tool")

# Marks that belong to a prompt's template and not to what it says: the control tokens of chat
# formats, and the question/answer labels that stand at the start of a line or sentence. Perturbing
# them measures the format, not the content, and drowns everything else.
_CHAT_MARK = re.compile(
    r"<\|[A-Za-z0-9_]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>"
)
_NAMES = (
    r"(?:Q|A|Question|Answer|Context|Instruction|User|Human|Assistant|System|Response|Input|Output)"
)
# A label stands at the start of a line or sentence, or is the last thing in the text (the place
# that the model is to fill in).
_LABEL = re.compile(
    rf"(?:(?<=\n)|(?<=[.!?] )|(?<=\A))[ \t]*({_NAMES}:)(?=\s|\Z)"
    rf"|(?<=\s)({_NAMES}:)(?=\s*\Z)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a prompt.

    Attributes:
        text: What it says.
        role: ``"user"`` for plain texts; else the chat role.
    """

    text: str
    role: str = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSpan:
    """A span that is never perturbed, and why.

    Attributes:
        message: Index of the message.
        start, end: Half-open code-point span.
        reason: ``"template mark"``, ``"template text"``, ``"special token"``, ``"role"`` or
            ``"user"``.
    """

    message: int
    start: int
    end: int
    reason: str = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A named value of a template: where it stands in the rendered message."""

    name: str
    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A half-open code-point span of one message that is perturbed as a whole.

    Attributes:
        message: Index of the message.
        start, end: Half-open code-point span.
        text: The text of the span.
        label: What to call it when its text is not a good name (a slot's or message's name).
    """

    message: int
    start: int
    end: int
    text: str
    label: str = ""

    @property
    def name(self) -> str:
        """The label, or the text when there is none."""
        return self.label or self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Replace ``[start, end)`` of one message by ``text``."""

    message: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A plain text, chat messages, or a template with slots; immutable.

    Make one with `Prompt.of`, `Prompt.from_text`, `Prompt.chat` or `Prompt.template`.

    Attributes:
        messages: The messages, at least one.
        kind: ``"text"`` (one message, sent as a plain text or as one user message, as the backend
            does it), ``"chat"`` or ``"template"`` (a text whose slots are known).
        fixed: Spans that are never perturbed, ordered and disjoint.
        slots: The values of a template, in order of appearance.
    """

    messages: tuple[Message, ...]
    kind: Kind = "text"
    fixed: tuple[FixedSpan, ...] = ()
    slots: tuple[Slot, ...] = ()

    # --- making one ---------------------------------------------------------------------------

    @classmethod
    def of(cls, value: PromptLike) -> Prompt:
        """A prompt from a text or a list of ``{"role": ..., "content": ...}``; checks it.

        Raises:
            ConfigError: The prompt is empty or of a type that is not understood.
        """
        if isinstance(value, Prompt):
            return value
        if isinstance(value, str):
            return cls.from_text(value)
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            return cls.chat(value)
        raise ConfigError(
            f"a prompt is a str, a list of {{'role', 'content'}} messages or a pizza.Prompt, "
            f"not {type(value).__name__}."
        )

    @classmethod
    def from_text(cls, text: str, *, keep_marks_fixed: bool = True) -> Prompt:
        """A plain-text prompt.

        Args:
            text: The text; must hold something other than white space.
            keep_marks_fixed: Keep template marks ("Q:", "A:", chat control tokens) out of the
                units. The result says which they were.
        """
        _require_text([text])
        fixed = template_marks(text) if keep_marks_fixed else ()
        return cls(messages=(Message(text=text),), fixed=fixed)

    @classmethod
    def chat(
        cls,
        messages: Sequence[Mapping[str, str] | Message],
        *,
        fixed_roles: Iterable[str] = (),
        keep_marks_fixed: bool = True,
    ) -> Prompt:
        """A chat prompt.

        Args:
            messages: ``{"role": "user", "content": "..."}`` mappings or `Message` values.
            fixed_roles: Roles whose messages are never perturbed, e.g. ``["system"]``.
            keep_marks_fixed: As in `from_text`.
        """
        made = tuple(_message(m) for m in messages)
        _require_text([m.text for m in made])
        keep = frozenset(fixed_roles)
        fixed: list[FixedSpan] = []
        for index, message in enumerate(made):
            if message.role in keep:
                fixed.append(
                    FixedSpan(message=index, start=0, end=len(message.text), reason="role")
                )
            elif keep_marks_fixed:
                fixed.extend(template_marks(message.text, message=index))
        return cls(messages=made, kind="chat", fixed=tuple(fixed))

    @classmethod
    def template(cls, template: str, /, **values: str) -> Prompt:
        """A template in `str.format` syntax and the values of its slots.

        Only the slots may be perturbed: the template's own text is fixed.

        Example:
            >>> p = Prompt.template("{name} lives in {place}.", name="Dave", place="Palm Coast")
            >>> p.text
            'Dave lives in Palm Coast.'
            >>> [s.name for s in p.slots]
            ['name', 'place']
        """
        parts: list[str] = []
        slots: list[Slot] = []
        fixed: list[FixedSpan] = []
        length = 0
        used: set[str] = set()
        for literal, field_name, spec, conversion in string.Formatter().parse(template):
            if literal:
                fixed.append(
                    FixedSpan(
                        message=0, start=length, end=length + len(literal), reason="template text"
                    )
                )
                parts.append(literal)
                length += len(literal)
            if field_name is None:
                continue
            if spec or conversion or not field_name.isidentifier():
                raise ConfigError(
                    f"the template slot {{{field_name}}} is not a plain name: write {{name}}."
                )
            if field_name not in values:
                raise ConfigError(
                    f"the template's slot {field_name!r} has no value: pass {field_name}='...'."
                )
            value = values[field_name]
            used.add(field_name)
            slots.append(Slot(name=field_name, message=0, start=length, end=length + len(value)))
            parts.append(value)
            length += len(value)
        if unknown := sorted(set(values) - used):
            raise ConfigError(f"the template has no slots named {', '.join(unknown)}.")
        if not slots:
            raise ConfigError("the template has no slots: write {name} where a value goes.")
        text = "".join(parts)
        _require_text([text])
        merged = _merge_adjacent(fixed)
        return cls(
            messages=(Message(text=text),), kind="template", fixed=merged, slots=tuple(slots)
        )

    # --- reading it ---------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The whole text: the message of a plain prompt, all messages joined by a blank line."""
        return "\n\n".join(m.text for m in self.messages)

    def fixed_in(self, message: int) -> tuple[FixedSpan, ...]:
        """The fixed spans of one message, in order."""
        return tuple(span for span in self.fixed if span.message == message)

    def free_spans(self, message: int) -> tuple[tuple[int, int], ...]:
        """The spans of one message that may be perturbed, in order; never empty spans."""
        spans: list[tuple[int, int]] = []
        at = 0
        for span in self.fixed_in(message):
            if span.start > at:
                spans.append((at, span.start))
            at = max(at, span.end)
        if at < len(self.messages[message].text):
            spans.append((at, len(self.messages[message].text)))
        return tuple(spans)

    # --- a changed one ------------------------------------------------------------------------

    def fix(self, *spans: tuple[int, int, int] | tuple[int, int] | str) -> Prompt:
        """This prompt with more parts fixed.

        Args:
            *spans: ``(start, end)`` of the only message, ``(message, start, end)``, or a regular
                expression whose matches are fixed.
        """
        added: list[FixedSpan] = list(self.fixed)
        for span in spans:
            if isinstance(span, str):
                for index, message in enumerate(self.messages):
                    added.extend(
                        FixedSpan(message=index, start=match.start(), end=match.end())
                        for match in re.finditer(span, message.text)
                        if match.end() > match.start()
                    )
                continue
            index, start, end = (0, *span) if len(span) == 2 else span
            self._check_span(index, start, end)
            added.append(FixedSpan(message=index, start=start, end=end))
        return replace(self, fixed=_disjoint(added))

    def with_fixed(self, spans: Iterable[FixedSpan]) -> Prompt:
        """This prompt with more spans fixed, each for its own reason."""
        return replace(self, fixed=_disjoint([*self.fixed, *spans]))

    def edited(self, edits: Sequence[Edit]) -> Prompt:
        """The prompt after disjoint edits. Messages that become empty are dropped (not the last).

        Fixed spans and slots are not carried over: an edited prompt is for sending.
        """
        kind: Kind = "chat" if self.kind == "chat" else "text"
        if len(self.messages) == 1 and not [edit for edit in edits if edit.message]:
            (only,) = self.messages
            made = Message(text=_apply(only.text, edits), role=only.role)
            return Prompt(messages=(made,), kind=kind)
        by_message: dict[int, list[Edit]] = {}
        for edit in edits:
            by_message.setdefault(edit.message, []).append(edit)
        messages: list[Message] = []
        emptied: list[Message] = []
        for index, message in enumerate(self.messages):
            changes = by_message.get(index)
            if not changes:
                messages.append(message)
                continue
            made = Message(text=_apply(message.text, changes), role=message.role)
            if made.text or not message.text:
                messages.append(made)
            else:
                emptied.append(made)
        if not messages:
            messages = emptied[-1:]
        return Prompt(messages=tuple(messages), kind=kind)

    def unit(self, message: int, start: int, end: int, label: str = "") -> Unit:
        """The unit at a span of this prompt.

        Raises:
            ConfigError: The span is empty or outside of the message.
        """
        self._check_span(message, start, end)
        text = self.messages[message].text[start:end]
        return Unit(message=message, start=start, end=end, text=text, label=label)

    def _check_span(self, message: int, start: int, end: int) -> None:
        if not 0 <= message < len(self.messages):
            raise ConfigError(
                f"there is no message {message}: the prompt has {len(self.messages)}."
            )
        length = len(self.messages[message].text)
        if not 0 <= start < end <= length:
            raise ConfigError(
                f"the span ({start}, {end}) is empty or outside of message {message}, which has "
                f"{length} characters."
            )

    # --- saving -------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        return {
            "kind": self.kind,
            "messages": [{"role": m.role, "content": m.text} for m in self.messages],
            "fixed": [[f.message, f.start, f.end, f.reason] for f in self.fixed],
            "slots": [[s.name, s.message, s.start, s.end] for s in self.slots],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prompt:
        """The inverse of `to_dict`."""
        return cls(
            messages=tuple(Message(text=m["content"], role=m["role"]) for m in data["messages"]),
            kind=data["kind"],
            fixed=tuple(
                FixedSpan(message=m, start=s, end=e, reason=r) for m, s, e, r in data["fixed"]
            ),
            slots=tuple(Slot(name=n, message=m, start=s, end=e) for n, m, s, e in data["slots"]),
        )


PromptLike = Prompt | str | Sequence[Mapping[str, str] | Message]
"""What `Prompt.of` understands."""


def template_marks(text: str, *, message: int = 0) -> tuple[FixedSpan, ...]:
    """The spans of a text that belong to a prompt template: chat control tokens, "Q:", "A:", ..."""
    found = [m.span() for m in _CHAT_MARK.finditer(text)]
    found += [m.span(m.lastindex or 0) for m in _LABEL.finditer(text)]
    # Something must be left to perturb: a text of nothing but marks is a text like any other.
    marks = _disjoint(
        FixedSpan(message=message, start=s, end=e, reason="template mark") for s, e in found
    )
    rest = _apply(text, [Edit(message=0, start=m.start, end=m.end, text="") for m in marks])
    return marks if rest.strip() else ()


def _require_text(texts: Sequence[str]) -> None:
    if not any(text.strip() for text in texts):
        raise ConfigError(
            "the prompt is empty: give it a text (or messages) with something other than white "
            "space."
        )
    for index, text in enumerate(texts):
        # A lone surrogate cannot be encoded as UTF-8, so no server could ever receive it.
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"message {index} of the prompt holds a lone surrogate at position "
                f"{error.start}: it is not valid Unicode text. Decode it with errors='replace'."
            ) from None


def _message(value: Mapping[str, str] | Message) -> Message:
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        raise ConfigError(f"a chat message is {{'role': ..., 'content': ...}}, not {value!r}.")
    role, content = value["role"], value["content"]
    if role not in _ROLES:
        raise ConfigError(f"the role {role!r} is not one of {', '.join(_ROLES)}.")
    if not isinstance(content, str):
        raise ConfigError(
            f"the content of a message is a str, not {type(content).__name__}: images and other "
            "parts are not supported."
        )
    return Message(text=content, role=role)


def _apply(text: str, edits: Sequence[Edit]) -> str:
    if len(edits) == 1 and edits[0].start >= 0:
        return text[: edits[0].start] + edits[0].text + text[edits[0].end :]
    pieces: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if edit.start < at:
            raise ConfigError(f"overlapping edits at position {edit.start}.")
        pieces += (text[at : edit.start], edit.text)
        at = edit.end
    pieces.append(text[at:])
    return "".join(pieces)


def _disjoint(spans: Iterable[FixedSpan]) -> tuple[FixedSpan, ...]:
    """Order spans and cut away overlaps; the earlier one keeps the shared part."""
    result: list[FixedSpan] = []
    for span in sorted(spans, key=lambda s: (s.message, s.start, s.end)):
        start = span.start
        if result and result[-1].message == span.message:
            start = max(start, result[-1].end)
        if start < span.end:
            result.append(replace(span, start=start))
    return tuple(result)


def _merge_adjacent(spans: Sequence[FixedSpan]) -> tuple[FixedSpan, ...]:
    result: list[FixedSpan] = []
    for span in spans:
        if result and result[-1].end == span.start and result[-1].reason == span.reason:
            result[-1] = replace(result[-1], end=span.end)
        else:
            result.append(span)
    return tuple(result)
