# SPDX-License-Identifier: Apache-2.0
"""Gradients of a local model beside what others do, in one run, as a Markdown table.

``python benchmarks/local_gradients.py --cells 32/8`` takes about 10 minutes on two cores and needs
pizza-local, captum and inseq; captum's integrated gradients at 128/16 take an hour more, ``--rows
F,tokens,sequence`` leaves them out. Nothing is written but the table.

The model is GPT-2 small with random weights, so nothing is downloaded; a word-level tokenizer gives
everybody the same token ids. What is compared is processor time of the process, all threads: on a
shared machine it moves by 10 to 20 %, wall time by much more. One unit is F, a forward pass over
prompt and output with logits at the output only. Candidates take turns, round by round; the table
has medians and, in brackets, the extremes. That all compute the same numbers is asserted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Threads that spin while they wait would be counted as work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers
from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.gradients.functions import LogProb
from pizza_local.gradients.stacked import Stacked
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

_STEPS = 20
_BASELINE = 0


def _tokenizer(size: int) -> Any:
    words = {f"w{i}": i for i in range(size)}
    core = Tokenizer(models.WordLevel(words, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    last = f"w{size - 1}"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=last, eos_token=last, pad_token=last, unk_token="w0"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One prompt and output, and everybody who can differentiate it."""

    model: Any
    tokenizer: Any
    n_prompt: int
    n_output: int

    @cached_property
    def ids(self) -> Tensor:
        """Prompt and output, ``(1, n)``."""
        made = torch.Generator().manual_seed(self.n_prompt)
        shape = (1, self.n_prompt + self.n_output)
        return torch.randint(1, self.model.config.vocab_size - 1, shape, generator=made)

    @cached_property
    def texts(self) -> tuple[str, str]:
        """Prompt, and prompt with output."""
        words = [f"w{i}" for i in self.ids[0].tolist()]
        prompt, both = " ".join(words[: self.n_prompt]), " ".join(words)
        for text, ids in ((prompt, self.ids[0, : self.n_prompt]), (both, self.ids[0])):
            assert self.tokenizer(text)["input_ids"] == ids.tolist()
        return prompt, both

    @property
    def _outputs(self) -> Tensor:
        return self.ids[0, self.n_prompt :]

    @property
    def _positions(self) -> Tensor:
        return torch.arange(self.n_prompt - 1, self.n_prompt + self.n_output - 1)

    @cached_property
    def _engine(self) -> Stacked:
        engine = Stacked.for_model(self.model, Chunks(torch.device("cpu")))
        assert engine is not None
        return engine

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(ids).detach()
        return embedded

    def _gradients(self, points: Tensor, level: Any) -> Iterable[tuple[slice, Tensor, Tensor]]:
        return self._engine.gradients(
            points, self._positions, LogProb(targets=self._outputs), level=level, counts=Counts()
        )

    def forward(self) -> None:
        """F itself."""
        with torch.no_grad():
            self.model(input_ids=self.ids, logits_to_keep=self._positions, use_cache=False)

    def tokens(self) -> Tensor:
        """Gradients of every output token, ``(outputs, prompt, features)``."""
        ((_, _, gradients),) = self._gradients(self._embed(self.ids), "token")
        return gradients[0, :, : self.n_prompt]

    def sequence(self) -> Tensor:
        """Gradient of the whole output."""
        ((_, _, gradients),) = self._gradients(self._embed(self.ids), "sequence")
        return gradients[0, :, : self.n_prompt]

    def autograd(self) -> Tensor:
        """One pass forwards, one backwards per token, no gradients of weights."""
        embedded = self._embed(self.ids).requires_grad_()
        logits = self.model(
            inputs_embeds=embedded, logits_to_keep=self._positions, use_cache=False
        ).logits
        each = LogProb(targets=self._outputs).each(logits[0])
        rows = [torch.autograd.grad(x, embedded, retain_graph=True)[0][0] for x in each]
        return torch.stack(rows)[:, : self.n_prompt]

    def captum_gxa(self) -> Tensor:
        """Captum's gradient times input, ``(outputs, prompt)``."""
        from captum.attr import LayerGradientXActivation

        return self._captum(LayerGradientXActivation)

    def _captum(self, method: Any, **settings: Any) -> Tensor:
        from captum.attr import LLMGradientAttribution, TextTokenInput

        attribution = LLMGradientAttribution(
            method(self.model, self.model.get_input_embeddings()), self.tokenizer
        )
        given = TextTokenInput(self.texts[0], self.tokenizer, baselines=_BASELINE)
        result: Tensor = attribution.attribute(given, target=self._outputs, **settings).token_attr
        return result

    @cached_property
    def _inseq(self) -> Any:
        import inseq

        return inseq.load_model(self.model, "saliency", tokenizer=self.tokenizer, device="cpu")

    def inseq_saliency(self) -> Tensor:
        """Inseq's saliency: of probabilities, ``(prompt + outputs, outputs, features)``."""
        result = self._inseq.attribute(
            *self.texts, show_progress=False, pretty_progress=False
        ).sequence_attributions[0]
        saliency: Tensor = result.target_attributions
        return saliency

    def _ig(self, level: Any) -> Tensor:
        embedded = self._embed(self.ids)
        baseline = embedded.clone()
        baseline[:, : self.n_prompt] = self._embed(torch.tensor([_BASELINE]))
        nodes, weights = np.polynomial.legendre.leggauss(_STEPS)
        steps = torch.tensor((1 + nodes) / 2, dtype=embedded.dtype)[:, None, None]
        factors = torch.tensor(weights / 2, dtype=embedded.dtype)
        mean: Tensor | float = 0.0
        points = baseline + steps * (embedded - baseline)
        for chunk, _, gradients in self._gradients(points, level):
            mean = mean + torch.einsum("b,brld->rld", factors[chunk], gradients)
        return ((embedded - baseline) * mean).sum(-1)[:, : self.n_prompt]

    def ig_tokens(self) -> Tensor:
        """Integrated gradients of every output token, ``(outputs, prompt)``."""
        return self._ig("token")

    def ig_sequence(self) -> Tensor:
        """Integrated gradients of the whole output, ``(1, prompt)``."""
        return self._ig("sequence")

    def captum_ig(self) -> Tensor:
        """Captum's, the same steps."""
        from captum.attr import LayerIntegratedGradients

        return self._captum(LayerIntegratedGradients, n_steps=_STEPS)

    def check(self, got: dict[str, Tensor]) -> None:
        """That the results of one round are the same numbers."""
        if "tokens" in got:
            tokens = got["tokens"]
            times_input = (tokens * self._embed(self.ids)[:, : self.n_prompt]).sum(-1)
            same(got.get("sequence"), tokens.sum(0, keepdim=True))
            same(got.get("autograd"), tokens)
            same(got.get("captum-gxa"), times_input)
            if "inseq" in got:
                with torch.no_grad():
                    logits = self.model(self.ids, logits_to_keep=self._positions).logits[0]
                probs = LogProb(targets=self._outputs).each(logits).exp()
                saliency = got["inseq"].norm(dim=-1)[: self.n_prompt].T
                same(saliency / probs[:, None], tokens.norm(dim=-1))
        if "ig-tokens" in got:
            same(got.get("captum-ig"), got["ig-tokens"])
            same(got.get("ig-sequence"), got["ig-tokens"].sum(0, keepdim=True))


def same(got: Tensor | None, want: Tensor) -> None:
    """Equal to 1e-4 of the largest."""
    if got is not None:
        assert got.shape == want.shape, (got.shape, want.shape)
        assert (got - want).abs().max() <= 1e-4 * want.abs().max()


ROWS: dict[str, tuple[str, Callable[[Case], Any]]] = {
    "F": ("forward pass", Case.forward),
    "tokens": ("pizza, every output token", Case.tokens),
    "sequence": ("pizza, whole output", Case.sequence),
    "autograd": ("one forward, a backward per token", Case.autograd),
    "captum-gxa": ("captum LLMGradientAttribution, gradient x input", Case.captum_gxa),
    "inseq": ("inseq saliency", Case.inseq_saliency),
    "ig-tokens": (f"pizza, integrated gradients, {_STEPS} steps, every token", Case.ig_tokens),
    "ig-sequence": (
        f"pizza, integrated gradients, {_STEPS} steps, whole output",
        Case.ig_sequence,
    ),
    "captum-ig": (f"captum LayerIntegratedGradients, {_STEPS} steps", Case.captum_ig),
}
# A forward pass is short, so it is taken several times.
_REPEATS = {"F": 5}


def measure(case: Case, rows: list[str], rounds: int) -> dict[str, list[float]]:
    """Processor seconds per row and round, after one round that is not counted."""
    taken: dict[str, list[float]] = {row: [] for row in rows}
    for number in range(rounds + 1):
        got = {}
        for row in rows:
            repeats = _REPEATS.get(row, 1)
            start = time.process_time()
            for _ in range(repeats):
                got[row] = ROWS[row][1](case)
            if number or rounds == 0:
                taken[row].append((time.process_time() - start) / repeats)
        case.check(got)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="32/8,128/16", help="prompt/output tokens")
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=chosen.layers)
    model = transformers.GPT2LMHeadModel(config).eval()
    tokenizer = _tokenizer(config.vocab_size)
    rows: list[str] = chosen.rows.split(",")
    print("| prompt/output | what | cpu-s | in F | F per output token |")
    print("|---|---|---|---|---|")
    for cell in chosen.cells.split(","):
        n_prompt, n_output = map(int, cell.split("/"))
        case = Case(model=model, tokenizer=tokenizer, n_prompt=n_prompt, n_output=n_output)
        taken = measure(case, rows, chosen.rounds)
        unit = statistics.median(taken["F"]) if "F" in taken else float("nan")
        for row, seconds in taken.items():
            middle = statistics.median(seconds)
            print(
                f"| {cell} | {ROWS[row][0]} | {middle:.3f} ({min(seconds):.3f}-"
                f"{max(seconds):.3f}) | {middle / unit:.2f} | {middle / unit / n_output:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
