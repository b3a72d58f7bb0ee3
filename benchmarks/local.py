# SPDX-License-Identifier: Apache-2.0
"""The local backend beside captum and inseq, in one run, as a Markdown table.

``python benchmarks/local.py`` (about ten minutes on two cores) needs pizza-local, captum and inseq;
``--rows gradients,captum-gxa --cells 32/8`` runs some, ``--small`` a model that is no measure, and
``--device cuda`` runs it on a GPU, where the measure is time (synchronised) and peak memory.

The model is GPT-2 small with random weights, so nothing is downloaded; a word-level tokenizer gives
everybody the same token ids, and that is asserted, as is that all find the same numbers. pizza is
measured as it is used: through ``Session.attribute``, without a cache. On a CPU the measure is
processor time of the process, all threads: on a shared machine it moves by 10 to 20 %, wall time by
much more. F is a forward pass over prompt and output with logits at the output only, measured in
the same run. Candidates take turns, round by round; ratios are made within a round, and the table
has their median and extremes.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

# Threads that spin while they wait would be counted as work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "pizza-local" / "src"))

import numpy as np
import torch
import transformers
from pizza_local import LocalBackend
from pizza_local.scoring import Item, trie_size
from tokenizers import Tokenizer, models, pre_tokenizers

import pizza
from pizza.abc import ResponseCache

_STEPS = 20
_ABSENT = 0
"""The token that stands for an absent one, for everybody."""


class NoCache(ResponseCache):
    """Every round is computed."""

    async def get(self, key: str) -> bytes | None:
        """Nothing."""
        return None

    async def put(self, key: str, value: bytes) -> None:
        """Nowhere."""


def word_tokenizer(size: int) -> Any:
    """One word per token, so that everybody sees the same ids."""
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    last = f"w{size - 1}"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=last, eos_token=last, pad_token=last, unk_token="w0"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One prompt and output, and everybody who can explain it."""

    model: Any
    tokenizer: Any
    session: pizza.Session
    plain: pizza.Session
    low: pizza.Session | None
    n_prompt: int
    n_output: int
    work: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def ids(self) -> list[int]:
        """Prompt and output."""
        made = torch.Generator().manual_seed(self.n_prompt)
        n = self.n_prompt + self.n_output
        drawn = torch.randint(1, self.model.config.vocab_size - 1, (n,), generator=made)
        return [int(index) for index in drawn]

    @property
    def output(self) -> list[int]:
        """Ids of the output."""
        return self.ids[self.n_prompt :]

    @cached_property
    def texts(self) -> tuple[str, str]:
        """The prompt, and prompt with output."""
        words = [f"w{index}" for index in self.ids]
        prompt, both = " ".join(words[: self.n_prompt]), " ".join(words)
        for text, ids in ((prompt, self.ids[: self.n_prompt]), (both, self.ids)):
            assert self.tokenizer(text)["input_ids"] == ids
        return prompt, both

    # --- pizza ------------------------------------------------------------------------------------

    async def _ask(
        self, row: str, method: str, session: pizza.Session | None = None, **options: Any
    ) -> Any:
        found = await (session or self.session).attribute(
            self.texts[0],
            units="token",
            method=method,
            target=pizza.Target.tokens(self.output),
            **options,
        )
        assert len(found.units) == self.n_prompt
        inside = found.provenance["method"]["details"].get("passes")
        self.work[row] = inside or dict(found.provenance.get("work", {}))
        return found.scores

    async def gradients(self) -> Any:
        """Gradients of every output token."""
        return await self._ask("gradients", "input-x-gradient")

    async def probabilities(self) -> Any:
        """The same, as inseq asks for it: the norm, of probabilities."""
        return await self._ask("probabilities", "saliency:function=prob")

    async def sequence(self) -> Any:
        """Gradient of the whole output."""
        return await self._ask("sequence", "input-x-gradient:level=sequence")

    async def retained(self) -> Any:
        """The same by plain autograd: one forward, a backward per output token."""
        return await self._ask("retained", "input-x-gradient", self.plain)

    async def low_precision(self) -> Any:
        """Gradients of every output token in bfloat16."""
        return await self._ask("bf16", "input-x-gradient", self.low)

    async def leave_one_out(self) -> Any:
        """Every token of the prompt replaced."""
        return await self._ask(
            "leave-one-out", "leave-one-out", perturbation=f"fixed:text=w{_ABSENT}"
        )

    async def ig_tokens(self) -> Any:
        """Integrated gradients of every output token."""
        return await self._ask("ig", f"integrated-gradients:steps={_STEPS},baseline={_ABSENT}")

    async def ig_sequence(self) -> Any:
        """Integrated gradients of the whole output."""
        method = f"integrated-gradients:steps={_STEPS},baseline={_ABSENT},level=sequence"
        return await self._ask("ig-sequence", method)

    # --- others -----------------------------------------------------------------------------------

    async def forward(self) -> None:
        """F itself."""
        device = self.model.device
        first = self.n_prompt - 1
        keep = torch.arange(first, first + self.n_output, device=device)
        ids = torch.tensor([self.ids[:-1]], device=device)
        with torch.no_grad():
            self.model(input_ids=ids, logits_to_keep=keep, use_cache=False)

    @property
    def _given(self) -> Any:
        from captum.attr import TextTokenInput

        given = TextTokenInput(self.texts[0], self.tokenizer, baselines=_ABSENT)
        assert given.inp_tensor[0].tolist() == self.ids[: self.n_prompt]
        return given

    def _captum(self, name: str, **options: Any) -> Any:
        import captum.attr

        method = getattr(captum.attr, name)(self.model, self.model.get_input_embeddings())
        found = captum.attr.LLMGradientAttribution(method, self.tokenizer).attribute(
            self._given, target=torch.tensor(self.output), **options
        )
        return found.token_attr.detach().cpu().numpy()

    async def captum_gxa(self) -> Any:
        """Captum's gradient times input."""
        return self._captum("LayerGradientXActivation")

    async def captum_ig(self) -> Any:
        """Captum's integrated gradients, the same steps."""
        return self._captum("LayerIntegratedGradients", n_steps=_STEPS)

    async def captum_ablation(self) -> Any:
        """Captum's leave-one-out, in the setting that is right."""
        from captum.attr import FeatureAblation, LLMAttribution

        found = LLMAttribution(FeatureAblation(self.model), self.tokenizer).attribute(
            self._given, target=torch.tensor(self.output), forward_in_tokens=False
        )
        return found.token_attr.cpu().numpy()

    @cached_property
    def _inseq(self) -> Any:
        import inseq

        device = str(self.model.device)
        return inseq.load_model(self.model, "saliency", tokenizer=self.tokenizer, device=device)

    async def inseq_saliency(self) -> Any:
        """Inseq's saliency, which is that of probabilities."""
        found = self._inseq.attribute(
            *self.texts, show_progress=False, pretty_progress=False
        ).sequence_attributions[0]
        assert [token.id for token in found.target] == self.ids
        raw = found.target_attributions[: self.n_prompt]
        return raw.norm(dim=-1).T.cpu().numpy()


ROWS: dict[str, Callable[[Case], Awaitable[Any]]] = {
    "F": Case.forward,
    "gradients": Case.gradients,
    "probabilities": Case.probabilities,
    "retained": Case.retained,
    "captum-gxa": Case.captum_gxa,
    "inseq": Case.inseq_saliency,
    "sequence": Case.sequence,
    "leave-one-out": Case.leave_one_out,
    "captum-ablation": Case.captum_ablation,
    "ig": Case.ig_tokens,
    "ig-sequence": Case.ig_sequence,
    "captum-ig": Case.captum_ig,
    "bf16": Case.low_precision,
}
_LARGE = ("F", "gradients", "probabilities", "retained", "captum-gxa", "inseq", "sequence")
"""What is run with long prompts, where integrated gradients of others take minutes."""
_REPEATS = {"F": 5}
"""A forward pass is short, so it is taken several times."""
# What others compute is this of ours, without the row of the whole output.
_SAME = {
    "captum-gxa": "gradients",
    "inseq": "probabilities",
    "captum-ablation": "leave-one-out",
    "captum-ig": "ig",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one row took in one round: seconds (of the processor, on a CPU), and peak bytes."""

    seconds: float
    peak: int = 0


async def measure(case: Case, rows: list[str], rounds: int) -> dict[str, list[Taken]]:
    """All rows, round by round, after a round that is not counted."""
    taken: dict[str, list[Taken]] = {row: [] for row in rows}
    for number in range(rounds + 1):
        got: dict[str, Any] = {}
        for row in rows:
            one, got[row] = await _timed(case, row)
            if number:
                taken[row].append(one)
        check(got)
        case.work["results"] = got
    return taken


async def _timed(case: Case, row: str) -> tuple[Taken, Any]:
    cuda = case.model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if cuda else 0
    clock = time.perf_counter if cuda else time.process_time
    repeats = _REPEATS.get(row, 1)
    start = clock()
    for _ in range(repeats):
        result = await ROWS[row](case)
    if cuda:
        torch.cuda.synchronize()
    seconds = (clock() - start) / repeats
    peak = torch.cuda.max_memory_allocated() - held if cuda else 0
    return Taken(seconds=seconds, peak=peak), result


def check(got: dict[str, Any]) -> None:
    """That the results of one round are the same numbers."""
    for theirs, ours in _SAME.items():
        if theirs in got and ours in got:
            same(got[theirs], got[ours][1:])
    if "retained" in got and "gradients" in got:
        same(got["retained"], got["gradients"])
    for whole, each in (("sequence", "gradients"), ("ig-sequence", "ig")):
        if whole in got and each in got:
            same(got[whole][0], got[each][0])


def same(got: Any, want: Any) -> None:
    """Equal to 1e-3 of the largest; single precision on any device."""
    assert got.shape == want.shape, (got.shape, want.shape)
    assert np.abs(got - want).max() <= 1e-3 * np.abs(want).max()


def ranks_alike(one: Any, other: Any) -> float:
    """Spearman's rank correlation of two arrays."""
    ranks = [np.argsort(np.argsort(np.ravel(values))) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


# --- what has to be reached ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A ratio of two rows and what it should be.

    Attributes:
        text: What is compared.
        above, below: The rows whose seconds are divided.
        least: The ratio should be at least this; or
        most: at most this.
        per_output: Divide by the number of output tokens.
        cells: Only for these prompt/output lengths; all when empty.
    """

    text: str
    above: str
    below: str
    least: float | None = None
    most: float | None = None
    per_output: bool = False
    cells: tuple[str, ...] = ()


GOALS = (
    Goal(
        text="gradients of all output tokens, in F", above="gradients", below="F", most=4.0,
        cells=("32/8",),
    ),
    Goal(text="gradients of all output tokens, in F", above="gradients", below="F",
         cells=("128/16",)),
    Goal(
        text="the same per output token, in F", above="gradients", below="F", most=0.75,
        per_output=True,
    ),
    Goal(text="against captum LLMGradientAttribution", above="captum-gxa", below="gradients",
         least=4.5),
    Goal(text="against inseq saliency", above="inseq", below="probabilities", least=4.5),
    Goal(text="against one forward and a backward per output token", above="retained",
         below="gradients"),
    Goal(text="whole-sequence gradient, in F", above="sequence", below="F"),
    Goal(
        text="leave-one-out against captum LLMAttribution(FeatureAblation), by sequence",
        above="captum-ablation", below="leave-one-out", least=4.0,
    ),
    Goal(text="integrated gradients, all output tokens, against captum", above="captum-ig",
         below="ig", least=2.0),
    Goal(text="integrated gradients, whole sequence, against captum", above="captum-ig",
         below="ig-sequence", least=6.0),
    Goal(text="bf16 against fp32, gradients", above="gradients", below="bf16"),
)  # fmt: skip


def ratios(goal: Goal, taken: dict[str, list[Taken]], n_output: int) -> list[float]:
    """One ratio a round; empty where a row was not run."""
    if goal.above not in taken or goal.below not in taken:
        return []
    divisor = n_output if goal.per_output else 1
    pairs = zip(taken[goal.above], taken[goal.below], strict=True)
    return [above.seconds / below.seconds / divisor for above, below in pairs]


def goal_line(goal: Goal, cell: str, found: list[float]) -> str:
    """A line of the table."""
    middle = statistics.median(found)
    wanted, holds = "-", ""
    if goal.least is not None:
        wanted, holds = f">= {goal.least:g}", "yes" if middle >= goal.least else "no"
    if goal.most is not None:
        wanted, holds = f"<= {goal.most:g}", "yes" if middle <= goal.most else "no"
    spread = f"{min(found):.2f}-{max(found):.2f}"
    return f"| {cell} | {goal.text} | {wanted} | {middle:.2f} | {spread} | {holds} |"


def counted(case: Case, cell: str) -> list[str]:
    """Lines about passes and tokens, which are the same in every round."""
    lines = []
    if "sequence" in case.work:
        done = case.work["sequence"]
        passes = f"{done['forward_passes']} forward, {done['backward_passes']} backward"
        right = (done["forward_passes"], done["backward_passes"]) == (1, 1)
        lines.append(
            f"| {cell} | whole-sequence gradient, counted passes | 1 forward, 1 backward | "
            f"{passes} |  | {'yes' if right else 'no'} |"
        )
    if "leave-one-out" in case.work:
        prompt, output = case.ids[: case.n_prompt], tuple(case.output)
        changed = [(*prompt[:i], _ABSENT, *prompt[i + 1 :]) for i in range(len(prompt))]
        items = [Item(prompt=one, target=output) for one in changed]
        # The reference is asked for first, by itself.
        wanted = len(case.ids) - 1 + trie_size(items)
        got = case.work["leave-one-out"]["forward_tokens"]
        right = "yes" if got == wanted else "no"
        lines.append(
            f"| {cell} | leave-one-out, tokens computed | trie: {wanted} | {got} |  | {right} |"
        )
    results = case.work.get("results", {})
    if "bf16" in results:
        alike = ranks_alike(results["bf16"], results["gradients"])
        lines.append(f"| {cell} | bf16, rank correlation to fp32 | - | {alike:.4f} |  |  |")
    return lines


# --- running -------------------------------------------------------------------------------------


def has_amx() -> bool:
    """Whether the processor multiplies bfloat16 matrices."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii")
    except OSError:
        return False


def make_model(options: argparse.Namespace) -> Any:
    """GPT-2 small, or something tiny."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=options.layers)
    if options.small:
        config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=500)
    return transformers.GPT2LMHeadModel(config).eval().to(options.device)


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    model = make_model(options)
    tokenizer = word_tokenizer(model.config.vocab_size)
    chosen = options.rows.split(",")
    low = None
    if "bf16" in chosen:
        if options.device.startswith("cuda") or has_amx() or options.small:
            low = copy.deepcopy(model).to(torch.bfloat16)
        else:
            chosen.remove("bf16")
            print("bf16: not measured, this processor has no AMX.\n", flush=True)
    details: list[str] = []
    print("| prompt/output | work | at least | measured | spread | holds |")
    print("|---|---|---|---|---|---|", flush=True)
    async with AsyncExitStack() as stack:

        async def opened(network: Any, **how: Any) -> pizza.Session:
            backend = LocalBackend(network, tokenizer, **how)
            return await stack.enter_async_context(pizza.Session(backend, cache=NoCache()))

        sessions = {
            "session": await opened(model),
            "plain": await opened(model, stacked=False),
            "low": None if low is None else await opened(low),
        }
        for cell in options.cells.split(","):
            n_prompt, n_output = map(int, cell.split("/"))
            case = Case(
                model=model, tokenizer=tokenizer, n_prompt=n_prompt, n_output=n_output, **sessions
            )
            rows = [row for row in chosen if n_prompt <= 64 or options.all or row in _LARGE]
            details += await _cell(case, cell, rows, options.rounds)
    measure_is = "s" if options.device.startswith("cuda") else "cpu-s"
    print(f"\n| prompt/output | what | {measure_is} | spread | peak MB |\n|---|---|---|---|---|")
    print("\n".join(details))


async def _cell(case: Case, cell: str, rows: list[str], rounds: int) -> list[str]:
    """Measure and print one length; the rows' own times are returned."""
    taken = await measure(case, rows, rounds)
    for goal in GOALS:
        found = ratios(goal, taken, case.n_output)
        if found and (not goal.cells or cell in goal.cells):
            print(goal_line(goal, cell, found))
    for line in counted(case, cell):
        print(line)
    sys.stdout.flush()
    return [_detail(cell, row, each) for row, each in taken.items()]


def _detail(cell: str, row: str, taken: list[Taken]) -> str:
    seconds = [one.seconds for one in taken]
    peak = max(one.peak for one in taken)
    shown = f"{peak / 1e6:.0f}" if peak else ""
    return (
        f"| {cell} | {row} | {statistics.median(seconds):.4f} | "
        f"{min(seconds):.4f}-{max(seconds):.4f} | {shown} |"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cells", default="32/8,128/16", help="prompt/output tokens")
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--small", action="store_true", help="a tiny model: no measure")
    parser.add_argument("--all", action="store_true", help="all rows with long prompts, too")
    options = parser.parse_args()
    unknown = [row for row in options.rows.split(",") if row not in ROWS]
    if unknown or options.rounds < 1:
        parser.error(f"rows are {', '.join(ROWS)} and rounds 1 or more")
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    for noisy in ("transformers", "inseq", "pizza"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
