# SPDX-License-Identifier: Apache-2.0
"""How far each method is from its formula, on each kind of model, as a Markdown table.

    python benchmarks/agreement.py --write docs/agreement.md

Needs pizza-local; with captum and inseq it compares with them too. Models are tiny, random and made
here; scores come through `pizza.Session`; what they should be comes from ``tests/support``: plain
torch, one forward pass per output token. The same command always writes the same numbers but for
rounding, which depends on the processor.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT / "plugins" / "pizza-local" / "src")]

import torch  # noqa: E402
from support import cases, oracles, peers, tiny  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import CapabilityError  # noqa: E402

_TARGETS = ("text", "contrast")
_STEPS = 3
_STAND_IN = "the"
_SINGLE = 1e-5
_DECODERS = ("gpt2", "llama")
_ENCODERS = ("bert-classifier", "bert-mlm")
_UNK = 3
_ELSEWHERE = ("attention-rollout", "value-zeroing", "atman")
_SPECIAL = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A method, as it is asked for, and what it should give.

    Attributes:
        name: The method.
        options: Its options, as in ``"name:option=value"``.
        expected: Scores of words, from a case and the name of its target.
        plain: The options for a plain module, which has no words to be the baseline.
        contrast: Whether a contrast is explained too.
    """

    name: str
    expected: Callable[[Any, str], Any]
    options: str = ""
    plain: str | None = None
    contrast: bool = True


def _tokens(
    oracle: Callable[..., Any], how: str = "sum", **options: Any
) -> Callable[[Any, str], Any]:
    def expected(case: Any, target: str) -> Any:
        return case.expected(target, oracle(case.targets[target][1], **options), how)

    return expected


def _from_pad(case: Any, target: str) -> Any:
    explained = case.targets[target][1]
    pad = "zero" if case.kind == "bag-of-words" else 0 if case.kind in _ENCODERS else 2
    return case.expected(target, oracles.gradient_shap(explained, baseline=pad))


def _walked(case: Any, target: str) -> Any:
    explained = case.targets[target][1]
    tokenizer = tiny.byte_tokenizer() if case.kind in ("gpt2", "llama", "t5") else None
    known = (tokenizer or tiny.word_tokenizer()).get_vocab()
    words = sorted(index for text, index in known.items() if text not in _SPECIAL)
    return case.units(oracles.discretized_integrated_gradients(explained, words).detach())


def _suppressed(case: Any, target: str) -> Any:
    members = [
        [place for place, (a, b) in enumerate(case.token_spans) if a < end and start < b]
        for start, end in case.words
    ]
    return oracles.atman(case.targets[target][1], members=members)


ROWS = (
    Row(name="saliency", expected=_tokens(oracles.saliency, "norm")),
    Row(name="input-x-gradient", expected=_tokens(oracles.input_x_gradient)),
    Row(
        name="integrated-gradients",
        options=f"steps={_STEPS}",
        expected=_tokens(oracles.integrated_gradients, steps=_STEPS),
    ),
    Row(
        name="layer-saliency",
        options="layer=1",
        expected=_tokens(oracles.saliency, "norm", layer=1),
    ),
    Row(
        name="layer-input-x-gradient",
        options="layer=1",
        expected=_tokens(oracles.input_x_gradient, layer=1),
    ),
    Row(
        name="layer-integrated-gradients",
        options=f"layer=1,steps={_STEPS}",
        expected=_tokens(oracles.integrated_gradients, steps=_STEPS, layer=1),
    ),
    Row(
        name="gradient-shap",
        options="baselines=pad",
        plain="",
        expected=_from_pad,
        contrast=False,
    ),
    Row(
        name="smooth-grad",
        options="samples=4",
        expected=_tokens(oracles.smooth_grad, "norm"),
        contrast=False,
    ),
    Row(name="deep-lift", options="function=logit", expected=_tokens(oracles.deep_lift)),
    Row(
        name="sequential-integrated-gradients",
        options=f"steps={_STEPS},baseline=zero",
        expected=_tokens(oracles.sequential_integrated_gradients, steps=_STEPS),
        contrast=False,
    ),
    Row(
        name="discretized-integrated-gradients",
        options="steps=4,neighbours=5,baseline=zero",
        expected=_walked,
        contrast=False,
    ),
    Row(name="attention", expected=_tokens(oracles.attention), contrast=False),
    Row(name="attention-rollout", expected=_tokens(oracles.attention_rollout), contrast=False),
    Row(name="value-zeroing", expected=_tokens(oracles.value_zeroing), contrast=False),
    Row(name="atman", expected=_suppressed, contrast=False),
    Row(
        name="leave-one-out",
        expected=lambda case, target: case.leave_one_out(target, _STAND_IN),
        contrast=False,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What was found.

    Attributes:
        apart: Largest difference to the formula, relative to the largest score; ``None`` where the
            method does not apply.
        within: What it may be.
        reason: Why it does not apply, or what else should be known.
    """

    apart: float | None
    within: float = 0.0
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether the difference is one of rounding."""
        return self.apart is None or self.apart <= self.within

    def __str__(self) -> str:
        if self.apart is None:
            return f"- ({self.reason})" if self.reason else ""
        return f"{self.apart:.0e} ({self.reason})" if self.reason else f"{self.apart:.0e}"


async def cell(case: Any, session: pizza.Session, row: Row, targets: Sequence[str]) -> Cell:
    """One method on one model: the worst of the targets."""
    worst = 0.0
    plain = case.kind == "bag-of-words" and row.plain is not None
    options = row.plain if plain else row.options
    method = f"{row.name}:{options}" if options else row.name
    if case.kind == "t5" and row.name in _ELSEWHERE:
        return Cell(apart=None, reason="b")
    for target in targets if row.contrast else targets[:1]:
        try:
            found = await case.ask(session, method, target, perturbation=f"fixed:text={_STAND_IN}")
        except CapabilityError:
            return Cell(apart=None, reason="a")
        worst = max(worst, oracles.apart(found.scores, row.expected(case, target)))
    if worst > case.tolerance and len(targets) == 1:
        return _judged(case, row, targets[0], found.scores)
    return Cell(apart=worst, within=case.tolerance)


def _judged(case: Any, row: Row, target: str, scores: Any) -> Cell:
    """Where two computations in single precision differ: which of them is off?

    Both are held against the same weights in double precision. Nobody is to be further off than
    1e-5 and what plain torch in single precision is off by.
    """
    exact = cases.make(case.kind, torch.float32)
    exact.model.double()
    truth = row.expected(exact, target)
    own = oracles.apart(row.expected(case, target), truth)
    return Cell(
        apart=oracles.apart(scores, truth), within=case.tolerance + own, reason=f"torch {own:.0e}"
    )


async def formulas(dtype: torch.dtype, targets: Sequence[str]) -> list[tuple[str, list[Cell]]]:
    """Every method on every kind of model."""
    columns = []
    for kind in oracles.KINDS:
        case = cases.make(kind, dtype)
        async with pizza.Session(case.open()) as session:
            columns.append([await cell(case, session, row, targets) for row in ROWS])
    return [(row.name, [column[place] for column in columns]) for place, row in enumerate(ROWS)]


# --- others --------------------------------------------------------------------------------------


async def _ask(case: Any, session: pizza.Session, method: str) -> Any:
    found = await case.ask(session, method)
    return found.scores[1:]


def _captum_decoder(case: Any, name: str, **options: Any) -> Any:
    import captum.attr

    llama = case.kind == "llama"
    return case.units(
        peers.captum_decoder(
            case.model,
            tiny.byte_tokenizer(bos=llama),
            case.prompt,
            case.targets["text"][1].reading.targets,
            getattr(captum.attr, name),
            baseline=_UNK,
            skip=["<s>"] if llama else [],
            **options,
        )
    )


def _captum_encoder(case: Any, name: str, how: str = "sum", **options: Any) -> Any:
    import captum.attr

    explained = case.targets["text"][1]
    if name == "IntegratedGradients":
        options["absent"] = explained.baseline("zero")
    raw = peers.captum_encoder(explained.reading, getattr(captum.attr, name), **options)
    return case.units(oracles.reduced(raw, "l2" if how == "norm" else "sum").numpy(), how)


def _inseq(case: Any, name: str, how: str) -> Any:
    raw = peers.inseq_decoder(
        case.model,
        tiny.byte_tokenizer(bos=case.kind == "llama"),
        case.prompt,
        case.targets["text"][1].reading.targets,
        name,
    )
    return case.units(oracles.reduced(raw, "l2" if how == "norm" else "sum").numpy(), how)


# Who, what is asked of us, on which kinds of models, and what the other one says.
PEERS: tuple[tuple[str, str, Sequence[str], Callable[[Any], Any]], ...] = (
    (
        "captum LLMGradientAttribution(LayerGradientXActivation)",
        "input-x-gradient",
        _DECODERS,
        lambda case: _captum_decoder(case, "LayerGradientXActivation"),
    ),
    (
        "captum LLMGradientAttribution(LayerIntegratedGradients)",
        f"integrated-gradients:steps=5,baseline={_UNK}",
        _DECODERS,
        lambda case: _captum_decoder(case, "LayerIntegratedGradients", n_steps=5),
    ),
    (
        "captum Saliency",
        "saliency",
        _ENCODERS,
        lambda case: _captum_encoder(case, "Saliency", "norm", abs=False),
    ),
    (
        "captum InputXGradient",
        "input-x-gradient",
        _ENCODERS,
        lambda case: _captum_encoder(case, "InputXGradient"),
    ),
    (
        "captum IntegratedGradients",
        "integrated-gradients:steps=5",
        _ENCODERS,
        lambda case: _captum_encoder(case, "IntegratedGradients", n_steps=5),
    ),
    (
        "inseq saliency",
        "saliency:function=prob",
        _DECODERS,
        lambda case: _inseq(case, "saliency", "norm"),
    ),
    (
        "inseq input_x_gradient",
        "input-x-gradient:function=prob",
        _DECODERS,
        lambda case: _inseq(case, "input_x_gradient", "sum"),
    ),
)


async def others() -> list[tuple[str, list[Cell]]]:
    """Captum and inseq on the same token ids, models in double precision."""
    kinds = {kind: cases.make(kind) for kind in (*_DECODERS, *_ENCODERS)}
    table = []
    for who, method, where, their in PEERS:
        cells = []
        for kind, case in kinds.items():
            if kind not in where:
                cells.append(Cell(apart=None, reason=""))
                continue
            async with pizza.Session(case.open()) as session:
                ours = await _ask(case, session, method)
            cells.append(Cell(apart=oracles.apart(ours, their(case)), within=_SINGLE))
        table.append((f"{who} | `{method}`", cells))
    return table


# --- the page ------------------------------------------------------------------------------------

_INTRODUCTION = """# How far methods are from their formulas

Each method on each kind of model, beside an independent implementation in plain torch
(`tests/support/oracles.py`: one forward pass per output token, autograd through the model of
transformers, paths walked step by step). A cell is the largest difference of any score, relative to
the largest score, for a given output and, in double precision, for a contrast of two (gradient
methods). Models are tiny and random; scores are those of words, through `pizza.Session`, for every
output token and the whole output.

Made by `python benchmarks/agreement.py --write docs/agreement.md`; a test runs that command and
fails where a difference is more than rounding.

**What rounding is.** Double precision: 1e-9. Single precision: 1e-5. The norms of Llama and T5 are
computed in single precision by transformers, whatever the model's precision is, so theirs is 1e-5
in both tables. Captum and inseq round their weights and results to single precision, so what they
say is compared to 1e-5. Where single precision is not enough for 1e-5, both sides are held against
double precision: `1e-05 (torch 8e-06)` is how far pizza is off, and how far plain torch.

Layer variants are at what leaves the first block.

a: the method does not apply, and pizza says so with a `CapabilityError` before it computes
anything: plain modules have no attention, no blocks and no embeddings of words; DeepLIFT's rescale
rule has no place for normalisation and attention. b: compared with independent torch in the tests
of the method, which know how the decoder's cross-attention is meant.
"""
_OTHERS = """The functions are what these libraries differentiate: captum the log-probability of
each token, inseq its probability. Where they are wrong, tests compare with plain torch instead
(`plugins/pizza-local/tests/test_peers.py`).
"""


def _table(head: Iterable[str], rows: Iterable[tuple[str, Sequence[Cell]]]) -> str:
    columns = list(head)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(map(str, cells)) + " |" for name, cells in rows]
    return "\n".join(lines) + "\n"


async def page() -> tuple[str, list[str]]:
    """The Markdown, and the cells that are not within rounding."""
    parts = [_INTRODUCTION]
    wrong: list[str] = []

    def add(title: str, text: str, head: Sequence[str], rows: Any) -> None:
        wrong.extend(
            f"{title}: {name}: {cell.apart}"
            for name, cells in rows
            for cell in cells
            if not cell.holds
        )
        parts.append(f"## {title}\n\n{text}{_table(head, rows)}")

    for title, dtype, targets in (
        ("Double precision", torch.float64, _TARGETS),
        ("Single precision", torch.float32, _TARGETS[:1]),
    ):
        rows = [(f"`{name}`", cells) for name, cells in await formulas(dtype, targets)]
        add(title, "", ("method", *oracles.KINDS), rows)
    head = ("library", "pizza", *_DECODERS, *_ENCODERS)
    if _others_are_here():
        add("Captum 0.9.0 and inseq 0.7.1", _OTHERS + "\n", head, await others())
    return "\n".join(parts), wrong


def _others_are_here() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("captum", "inseq"))


def main() -> None:
    """Print the page, or write it. Ends with 1 where a difference is more than rounding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--write", type=Path, help="write the page to this file")
    options = parser.parse_args()
    for noisy in ("pizza", "transformers", "inseq"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    text, wrong = asyncio.run(page())
    print(text)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
