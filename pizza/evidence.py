# SPDX-License-Identifier: Apache-2.0
"""`Evidence`: the answers behind an attribution, packed, so that they can be compared again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from pizza._jsonable import number as json_number
from pizza.completion import Completion, frozen_array
from pizza.errors import IncomparableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ALTERNATIVES = 500_000
"""Alternatives that the evidence of one attribution holds; about 7 MB, and 14 MB as JSON."""

ALTERNATIVES_VARIABLE = "PIZZA_MAX_ALTERNATIVES"
"""The environment variable that sets another number."""

# Alternatives are rows of a rectangle in a `Completion`: a damaged file must not make it huge.
_LARGEST_RECTANGLE = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """One answer. Tokens are indices into the vocabulary of its `Evidence`.

    Attributes:
        text: The text, or ``None`` when it is the tokens joined.
        tokens: ``(n_tokens,)`` int32, or ``None`` when they are the reference's (then the ids are,
            too).
        token_ids: ``(n_tokens,)`` int64 ids of the model's vocabulary, or ``None``.
        logprobs: ``(n_tokens,)`` natural-log probabilities, or ``None``.
        counts: ``(n_tokens,)`` int32, alternatives per position, or ``None`` without any.
        alternatives: ``(counts.sum(),)`` int32, position by position, best first, or ``None``.
        alternative_logprobs: Same shape, natural-log probabilities, or ``None``.
        finish_reason: As in `Completion`.
    """

    text: str | None = None
    tokens: NDArray[np.int32] | None = None
    token_ids: NDArray[np.int64] | None = None
    logprobs: NDArray[np.float64] | None = None
    counts: NDArray[np.int32] | None = None
    alternatives: NDArray[np.int32] | None = None
    alternative_logprobs: NDArray[np.float64] | None = None
    finish_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is ``None`` is left out."""
        found: dict[str, Any] = {"text": self.text, "finish_reason": self.finish_reason}
        for name in ("tokens", "token_ids", "counts", "alternatives"):
            values = getattr(self, name)
            found[name] = None if values is None else values.tolist()
        for name in ("logprobs", "alternative_logprobs"):
            values = getattr(self, name)
            found[name] = None if values is None else [json_number(v) for v in values.tolist()]
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, n_tokens: int, n_words: int) -> Packed:
        """The inverse of `to_dict`.

        Args:
            data: What `to_dict` made.
            n_tokens: Tokens of the reference.
            n_words: Size of the vocabulary.

        Raises:
            ValueError: The lists do not fit together.
        """
        tokens = _indices(data.get("tokens"), n_words)
        n = n_tokens if tokens is None else len(tokens)
        counts = _integers(data.get("counts"), np.int32)
        ids = _integers(data.get("token_ids"), np.int64)
        logprobs = _floats(data.get("logprobs"))
        alternatives = _indices(data.get("alternatives"), n_words)
        values = _floats(data.get("alternative_logprobs"))
        if any(array is not None and len(array) != n for array in (counts, ids, logprobs)):
            raise ValueError(f"an answer of {n} tokens with lists of other lengths")
        if len({counts is None, alternatives is None, values is None}) > 1:
            raise ValueError("counts, alternatives and alternative_logprobs come together")
        if counts is not None and alternatives is not None and values is not None:
            total = int(counts.sum(dtype=np.int64))
            if counts.min(initial=0) < 0 or not total == len(alternatives) == len(values):
                raise ValueError("an answer whose alternatives are not as many as counted")
            if n * int(counts.max(initial=0)) > _LARGEST_RECTANGLE:
                raise ValueError("an answer with more alternatives than any model gives")
        return cls(
            text=data.get("text"),
            tokens=tokens,
            token_ids=ids,
            logprobs=logprobs,
            counts=counts,
            alternatives=alternatives,
            alternative_logprobs=values,
            finish_reason=data.get("finish_reason"),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """One question about every coalition, and what was answered.

    Attributes:
        kind: ``"complete"``: the model wrote. ``"score"``: the log-probabilities of a given text.
        reference: The answer to the unperturbed prompt, whole.
        answers: Per coalition its answers: usually one, none where the model gave none, several
            where the question was repeated.
        vocabulary: The texts that tokens of the answers point to.
        target: The text that was scored, or ``None``.
        target_ids: The same as token ids, where they are known.
        sign: 1, or -1 for the other side of a contrast.
        further: More answers to the unperturbed prompt, which tell the noise of a model.
        dropped: Alternatives that came with the answers and were not kept, because there were
            more than `MAX_ALTERNATIVES`: all of them, or none.
    """

    kind: Literal["complete", "score"]
    reference: Completion
    answers: tuple[tuple[Packed, ...], ...]
    vocabulary: tuple[str, ...] = ()
    target: str | None = None
    target_ids: tuple[int, ...] | None = None
    sign: int = 1
    further: tuple[Completion, ...] = ()
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def logprobs(self) -> NDArray[np.float64]:
        """``(n, n_reference_tokens)``, of each coalition's first answer.

        NaN where there is none, or where it holds other tokens than the reference.
        """
        result = np.full((len(self.answers), len(self.reference.tokens)), np.nan)
        for row, answers in zip(result, self.answers, strict=True):
            if answers and answers[0].tokens is None and answers[0].logprobs is not None:
                row[:] = answers[0].logprobs
        return frozen_array(result)

    def completions(
        self, coalition: int, window: tuple[int, int] | None = None
    ) -> tuple[Completion, ...]:
        """The answers for one coalition, as they came (without their usage).

        Reading the alternatives of an answer whose alternatives were dropped raises
        `IncomparableError`.

        Args:
            coalition: Its number.
            window: Half-open range of the tokens that are wanted, or ``None`` for all.
        """
        part = slice(*window) if window else None
        return tuple(self._unpacked(packed, part) for packed in self.answers[coalition])

    def _unpacked(self, packed: Packed, part: slice | None) -> Completion:
        words, reference = self.vocabulary, self.reference
        tokens, ids = reference.tokens, reference.token_ids
        if packed.tokens is not None:
            tokens, ids = tuple(words[i] for i in packed.tokens.tolist()), None
        if packed.token_ids is not None:
            ids = tuple(packed.token_ids.tolist())
        texts, values = _alternatives(packed, words)
        text, logprobs = packed.text, packed.logprobs
        if part is not None:
            text, tokens, ids = None, tokens[part], ids and ids[part]
            logprobs = None if logprobs is None else logprobs[part]
            texts, values = texts and texts[part], None if values is None else values[part]
        kind = _WithoutAlternatives if self.dropped else Completion
        return kind(
            text="".join(tokens) if text is None else text,
            tokens=tokens,
            logprobs=logprobs,
            alternative_tokens=texts,
            alternative_logprobs=values,
            finish_reason=packed.finish_reason,
            model=reference.model,
            token_ids=ids,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        return {
            "kind": self.kind,
            "target": self.target,
            "target_ids": None if self.target_ids is None else list(self.target_ids),
            "sign": self.sign,
            "reference": self.reference.to_dict(),
            "further": [answer.to_dict() for answer in self.further],
            "vocabulary": list(self.vocabulary),
            "dropped": self.dropped,
            "answers": [[packed.to_dict() for packed in answers] for answers in self.answers],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], n_coalitions: int) -> Evidence:
        """The inverse of `to_dict`.

        Raises:
            ValueError, KeyError, TypeError: The data is damaged.
        """
        kind, ids = data["kind"], data["target_ids"]
        if kind not in ("complete", "score") or data["sign"] not in (1, -1):
            raise ValueError(f"evidence of kind {kind!r} and sign {data['sign']!r}")
        if len(data["answers"]) != n_coalitions:
            raise ValueError(f"{len(data['answers'])} answers for {n_coalitions} coalitions")
        reference = Completion.from_dict(data["reference"])
        words = tuple(data["vocabulary"])
        if any(not isinstance(word, str) for word in words):
            raise ValueError("a vocabulary of something else than texts")
        sizes = {"n_tokens": len(reference.tokens), "n_words": len(words)}
        return cls(
            kind=kind,
            reference=reference,
            answers=tuple(
                tuple(Packed.from_dict(packed, **sizes) for packed in answers)
                for answers in data["answers"]
            ),
            vocabulary=words,
            target=data["target"],
            target_ids=None if ids is None else tuple(int(i) for i in ids),
            sign=data["sign"],
            further=tuple(Completion.from_dict(answer) for answer in data["further"]),
            dropped=int(data["dropped"]),
        )


class Answers(Sequence[str | None]):
    """What the model wrote for each coalition, ``None`` where a text was scored.

    Args:
        texts: The texts.
        evidence: The answers whole, per question, or a function that packs them: it is called when
            somebody reads them, and once.
    """

    __slots__ = ("_evidence", "texts")

    def __init__(
        self,
        texts: tuple[str | None, ...],
        evidence: tuple[Evidence, ...] | Callable[[], tuple[Evidence, ...]] = (),
    ) -> None:
        self.texts = texts
        self._evidence = evidence

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The answers whole, per question.

        Cost: no request; the first time about 0.1 ms an answer.
        """
        if not isinstance(self._evidence, tuple):
            self._evidence = self._evidence()
        return self._evidence

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str | None, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str | None, ...] | None:
        return self.texts[index]


class _WithoutAlternatives(Completion):
    """A completion whose alternatives were not kept.

    Metrics go on without alternatives where there are none, with other numbers; these must not.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        """Nothing: what was packed had been checked, and checking reads the alternatives."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("alternative_tokens", "alternative_logprobs"):
            raise IncomparableError(
                f"the answers' alternatives (top log-probabilities) were more than "
                f"{MAX_ALTERNATIVES:,} and were not kept. Run it again with a smaller "
                f"top_logprobs, or with the variable {ALTERNATIVES_VARIABLE} set to more."
            )
        return super().__getattribute__(name)


def pack(
    completion: Completion, reference: Completion, number: dict[str, int], *, alternatives: bool
) -> Packed:
    """An answer as it is kept.

    Args:
        completion: The answer.
        reference: The answer to the unperturbed prompt.
        number: Text -> index in the vocabulary; grows.
        alternatives: Whether to keep them.
    """

    def numbered(texts: Sequence[str]) -> NDArray[np.int32]:
        for text in texts:
            number.setdefault(text, len(number))
        return frozen_array(list(map(number.__getitem__, texts)), dtype=np.int32)

    same = completion.tokens == reference.tokens
    ids = completion.token_ids
    rows, values = completion.alternative_tokens, completion.alternative_logprobs
    logprobs = completion.logprobs
    if logprobs is not None and logprobs.base is not None:
        # A view would keep all the numbers of the answer in memory.
        logprobs = frozen_array(logprobs.copy())
    counts = listed = values_listed = None
    if alternatives and rows is not None and values is not None:
        counts = frozen_array([len(row) for row in rows], dtype=np.int32)
        listed = numbered([text for row in rows for text in row])
        values_listed = frozen_array(values[np.arange(values.shape[1]) < counts[:, None]])
    return Packed(
        text=None if "".join(completion.tokens) == completion.text else completion.text,
        tokens=None if same else numbered(completion.tokens),
        token_ids=(
            None
            if ids is None or (same and ids == reference.token_ids)
            else frozen_array(ids, dtype=np.int64)
        ),
        logprobs=logprobs,
        counts=counts,
        alternatives=listed,
        alternative_logprobs=values_listed,
        finish_reason=completion.finish_reason,
    )


def _alternatives(
    packed: Packed, words: Sequence[str]
) -> tuple[tuple[tuple[str, ...], ...] | None, NDArray[np.float64] | None]:
    counts, listed, values = packed.counts, packed.alternatives, packed.alternative_logprobs
    if counts is None or listed is None or values is None:
        return None, None
    texts = iter([words[i] for i in listed.tolist()])
    wide = np.full((len(counts), int(counts.max(initial=0))), -np.inf)
    wide[np.arange(wide.shape[1]) < counts[:, None]] = values
    return tuple(tuple(next(texts) for _ in range(n)) for n in counts.tolist()), wide


def _floats(values: Sequence[Any] | None) -> NDArray[np.float64] | None:
    if values is None:
        return None
    return frozen_array([math.nan if v is None else float(v) for v in values])


def _integers(values: Sequence[Any] | None, dtype: Any) -> NDArray[Any] | None:
    if values is None:
        return None
    if any(type(value) is not int for value in values):
        raise ValueError("a list of integers holds something else")
    return frozen_array(values, dtype=dtype)


def _indices(values: Sequence[Any] | None, size: int) -> NDArray[np.int32] | None:
    indices = _integers(values, np.int32)
    if indices is not None and len(indices) and not 0 <= indices.min() <= indices.max() < size:
        raise ValueError(f"a token that is not in the vocabulary of {size}")
    return indices
