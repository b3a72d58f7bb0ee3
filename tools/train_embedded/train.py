# SPDX-License-Identifier: Apache-2.0
"""Trains the embedded model: ``python tools/train_embedded/train.py --out FOLDER``.

One CPU thread, about 75 minutes. Everything is seeded; the last lines of its output are the
figures on held-out prompts that ``metrics.json`` keeps.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from fit_tokenizer import fit
from model import CONFIG, Muon, Network
from pizza_embedded.tokenizer import Tokenizer
from rows import CONTEXT_WEIGHT, Mix, Row, RowMaker
from start import start
from torch import Tensor
from torch.nn import functional

POOL = 16


class MixAt:
    """What rows are drawn, by the share of the training that is done."""

    def __init__(self) -> None:
        self.done = 0.0

    def now(self) -> Mix:
        """Return the shares for now: looking up comes first, then small documents, then all."""
        if self.done < 0.06:
            return Mix(drills=0.05, recaps=0.5, damaged=0.15, long=0.0, easy=0.8)
        if self.done < 0.6:
            return Mix(drills=0.03, brief=0.35, recaps=0.12, damaged=0.15, long=0.0, easy=0.2)
        if self.done < 0.9:
            return Mix(drills=0.02, brief=0.15, recaps=0.05, damaged=0.3, long=0.01)
        return Mix(drills=0.01, brief=0.05, recaps=0.03, damaged=0.6, long=0.01)


def batches(
    tokenizer: Tokenizer, mix_at: MixAt, tokens: int, seed: int, first_pool: int = 0
) -> Iterator[list[Row]]:
    """Yield batches of rows of like length, about ``tokens`` token ids each, padding included.

    Every pool of rows has its own seed, so that training can be taken up again at a later one.
    """
    for number in itertools.count(first_pool):
        rng = random.Random(f"order/{seed}/{number}")
        maker = RowMaker(tokenizer, f"{seed}/{number}")
        mix, pool, total = mix_at.now(), [], 0
        while total < POOL * tokens:
            row = maker.row(mix)
            pool.append(row)
            total += len(row.ids)
        pool.sort(key=lambda row: len(row.ids))
        found: list[list[Row]] = [[]]
        for row in pool:
            if found[-1] and len(row.ids) * (len(found[-1]) + 1) > tokens:
                found.append([])
            found[-1].append(row)
        rng.shuffle(found)
        # A pool is always POOL batches, the last being what was left over.
        yield from found[:POOL]


def collate(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Return ids and weights, each ``(rows, longest)``, padded on the right with 0."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    weights = torch.zeros(len(rows), longest)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        weights[index, : len(row.ids)] = torch.tensor(row.weights)
    return ids, weights


def loss_of(network: Network, ids: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """Return the weighted mean loss and the mean loss of answer tokens alone (nats)."""
    hidden = network(ids[:, :-1])
    targets, weights = ids[:, 1:], weights[:, 1:]
    # A quarter of the context is enough to learn its statistics, and spares the output layer.
    kept = weights > CONTEXT_WEIGHT
    kept |= (weights > 0) & (torch.rand_like(weights) < 0.25)
    losses = functional.cross_entropy(
        hidden[kept] @ network.embed.T, targets[kept], reduction="none"
    )
    weights = weights[kept]
    answers = weights > 0.2
    return (losses * weights).sum() / weights.sum(), losses[answers].mean().item()


def rate_at(done: float, warm: float = 0.01, hold: float = 0.3) -> float:
    """Return the learning-rate factor: warm up, stay, fall linearly to nearly nothing."""
    if done < warm:
        return done / warm
    return min(1.0, (1.0 - done) / (1.0 - hold) + 0.01)


@torch.no_grad()
def grow(network: Network, state: dict[str, Tensor]) -> None:
    """Take over a network of one layer less; the new layer, before its last, starts as nothing."""
    last = len(network.layers) - 1
    for name, tensor in network.state_dict().items():
        _, _, rest = name.partition(".")
        index, _, part = rest.partition(".")
        if not index.isdigit():
            tensor.copy_(state[name])
        elif int(index) != last - 1:
            old = int(index) - (int(index) == last)
            tensor.copy_(state[f"layers.{old}.{part}"])
        elif part.endswith("layernorm"):
            tensor.fill_(1.0)
        elif part.endswith(("o_proj", "down_proj")):
            tensor.zero_()
        else:
            tensor.normal_(0, tensor.shape[1] ** -0.5)


def main() -> None:
    """Train, saving checkpoints as it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5200)
    parser.add_argument("--tokens", type=int, default=1800)
    parser.add_argument("--muon-rate", type=float, default=1e-3)
    parser.add_argument("--adam-rate", type=float, default=1e-3)
    parser.add_argument("--layers", type=int, default=CONFIG["num_hidden_layers"])
    parser.add_argument("--inner", type=int, default=CONFIG["intermediate_size"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=160, help="a multiple of 16")
    parser.add_argument(
        "--skip", type=float, default=0.0, help="share of the schedule to leave out"
    )
    parser.add_argument("--resume", type=Path, help="a state.pt to go on from")
    parser.add_argument("--grow", type=Path, help="a state.pt with one layer less to start from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if not (options.out / "tokenizer.json").exists():
        fit(options.out, seed=options.seed)
    tokenizer = Tokenizer.load(options.out / "tokenizer.json")
    network = Network(
        CONFIG | {"num_hidden_layers": options.layers, "intermediate_size": options.inner}
    )
    start(network)
    if options.grow:
        grow(network, torch.load(options.grow)["network"])
    muon = Muon(network.matrices(), momentum=0.95, decay=0.05)
    adam = torch.optim.AdamW(
        network.others(), lr=options.adam_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    first = 0
    if options.resume:
        saved = torch.load(options.resume)
        first = saved["step"]
        network.load_state_dict(saved["network"])
        adam.load_state_dict(saved["adam"])
        muon.buffers = saved["muon"]
    mix_at = MixAt()
    mix_at.done = options.skip + (1 - options.skip) * first / options.steps
    source = batches(tokenizer, mix_at, options.tokens, options.seed, first // POOL)
    started, running = time.monotonic(), math.nan
    for step in range(first, options.steps):
        done = step / options.steps
        mix_at.done = options.skip + (1 - options.skip) * done
        factor = rate_at(done)
        ids, weights = collate(next(source))
        loss, answer_loss = loss_of(network, ids, weights)
        loss.backward()
        muon.step(options.muon_rate * factor)
        adam.param_groups[0]["lr"] = options.adam_rate * factor
        adam.step()
        adam.zero_grad()
        running = answer_loss if math.isnan(running) else 0.98 * running + 0.02 * answer_loss
        if (step + 1) % 50 == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step + 1} answers {running:.4f} minutes {minutes:.1f}", flush=True)
        if (step + 1) % options.every == 0:
            network.save(options.out)
            torch.save(
                {"step": step + 1, "network": network.state_dict(), "adam": adam.state_dict(),
                 "muon": muon.buffers},
                options.out / "state.pt",
            )  # fmt: skip
    network.save(options.out)


if __name__ == "__main__":
    main()
