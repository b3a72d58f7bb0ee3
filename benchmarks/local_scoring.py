# SPDX-License-Identifier: Apache-2.0
"""Leave-one-out by replacement on a local model: pizza's scoring against captum's.

    python benchmarks/local_scoring.py --shape 32/8 --rounds 3

Both score the same prompts with one model of GPT-2 small's shape and random weights, one after
the other in one process. The measure is processor time of the process, on two threads.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A thread that waits must not count as work, for either side; torch reads this when imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "pizza-local" / "src"))

import numpy as np
import torch
import transformers
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput
from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.scoring import CausalScorer, Item, trie_size
from tokenizers import Tokenizer, models, pre_tokenizers


def _tokenizer(size: int) -> Any:
    """One word per token, so that both sides see the same ids."""
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="w0")


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def _sides(
    model: Any, prompt: list[int], target: tuple[int, ...]
) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """Two functions that give effects ``(T, P)``, and how many tokens ours computes."""
    words = _tokenizer(model.config.vocab_size)
    ablation = LLMAttribution(FeatureAblation(model), words)
    text = TextTokenInput(" ".join(f"w{token}" for token in prompt), words, baselines=0)
    if text.inp_tensor.tolist() != [prompt]:
        raise RuntimeError("captum was given other token ids")
    items = [Item(prompt=tuple(prompt), target=target)] + [
        Item(prompt=(*prompt[:i], 0, *prompt[i + 1 :]), target=target) for i in range(len(prompt))
    ]
    scorer = CausalScorer(model, Chunks(torch.device("cpu")))
    # The check before the first use happens once in the life of a model.
    scorer.score(items[:2], counts=Counts())

    def theirs() -> Any:
        found = ablation.attribute(
            text, target=torch.tensor(target), forward_in_tokens=False, use_cached_outputs=False
        )
        return found.token_attr.numpy()

    def ours() -> Any:
        whole, *without = scorer.score(items, counts=Counts())
        return np.stack([whole.logprobs - one.logprobs for one in without], axis=1)

    return theirs, ours, trie_size(items)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", default="32/8", help="prompt tokens / target tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=50257)
    options = parser.parse_args()
    torch.set_num_threads(2)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    n_prompt, n_target = map(int, options.shape.split("/"))
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=options.layers, vocab_size=options.vocabulary)
    ).eval()
    rng = random.Random(0)
    tokens = [rng.randrange(1, options.vocabulary) for _ in range(n_prompt + n_target)]
    theirs, ours, computed = _sides(model, tokens[:n_prompt], tuple(tokens[n_prompt:]))
    ratios = []
    for _ in range(options.rounds):
        slow, expected = _timed(theirs)
        fast, found = _timed(ours)
        ratios.append(slow / fast)
        apart = float(np.abs(found - expected).max())
        print(
            f"captum {slow:.2f} s, pizza {fast:.2f} s: {slow / fast:.2f}x; apart {apart:.1e} nats"
        )
    print(f"{options.shape}: {statistics.median(ratios):.2f}x; {computed} tokens computed")


if __name__ == "__main__":
    main()
