# SPDX-License-Identifier: Apache-2.0
"""Tiny models whose units are their prompt's tokens, so that scores of tokens can be compared."""

from dataclasses import dataclass

import numpy as np
import torch
import transformers
from pizza_local import LocalBackend
from pizza_local.chunks import Chunks
from support import tiny

import pizza

PROMPT = "Ana has 3 red apples and"
MASKED = "Ana has [MASK] red [MASK]"
OUTPUT = " Bob has 5"
KINDS = ("gpt2", "llama", "t5", "bert-classifier", "bert-mlm")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A model, what it reads and what it is asked about.

    Attributes:
        kind: One of `KINDS`.
        make: Makes the same model again, with changes of its configuration.
        tokenizer: Its tokenizer.
        prompt: The prompt's text.
        target: The output's text.
        ids: Token ids of the prompt.
        output: Token ids of the output, or the label.
        units: Spans of the tokens that are text.
        places: Their positions among ``ids``.
    """

    kind: str
    make: object
    tokenizer: object
    prompt: str
    target: str
    ids: list
    output: list
    units: list
    places: list

    @property
    def split(self):
        """Whether it is an encoder and a decoder."""
        return self.kind in ("t5", "bart")

    def open(self, model=None, *, chunk=None):
        """A backend; ``chunk`` = the most rows that go through the model at once."""
        backend = LocalBackend(self.make() if model is None else model, self.tokenizer)
        if chunk is not None:
            backend._open.chunks = _Small(chunk)
        return backend

    async def ask(self, method, model=None, *, chunk=None, **options):
        """The product's attribution, one unit a token."""
        settings = {"target": self.target, "units": self.units} | options
        async with pizza.Session(self.open(model, chunk=chunk)) as session:
            return await session.attribute(self.prompt, method=method, **settings)

    def eager(self):
        """The model with plain attention, as transformers computes it."""
        return self.make(attn_implementation="eager")

    def inputs(self, output=None):
        """What transformers is given, ids and all."""
        output = self.output if output is None else output
        if self.split:
            start = self.make().config.decoder_start_token_id
            before = torch.tensor([[start, *output[:-1]]])
            return {"input_ids": torch.tensor([self.ids]), "decoder_input_ids": before}
        after = output[:-1] if self.kind in ("gpt2", "llama") else []
        return {"input_ids": torch.tensor([[*self.ids, *after]])}

    def readers(self, output=None):
        """Positions whose states the outputs are read from."""
        output = self.output if output is None else output
        if self.kind in ("gpt2", "llama"):
            return [len(self.ids) - 1 + t for t in range(len(output))]
        if self.split:
            return list(range(len(output)))
        if self.kind == "bert-classifier":
            return [0]
        mask = self.tokenizer.mask_token_id
        return [place for place, index in enumerate(self.ids) if index == mask]

    def scores(self, rows):
        """Expected scores from rows ``(n_outputs, n_positions)``: their mean, then they."""
        picked = np.asarray(rows)[:, self.places]
        return np.vstack([picked.mean(axis=0), picked])

    def logs(self, model, **changes):
        """Log-probability of each output token, one plain call."""
        with torch.no_grad():
            logits = model(**self.inputs() | changes).logits
        rows = logits if self.kind == "bert-classifier" else logits[0][self.readers()]
        return rows.log_softmax(-1)[torch.arange(len(self.output)), torch.tensor(self.output)]


class _Small(Chunks):
    def __init__(self, most):
        super().__init__(torch.device("cpu"))
        self._most = most

    def size(self, key, bytes_each, most):
        return min(self._most, super().size(key, bytes_each, most))


def _bart(**changes):
    """An encoder-decoder of 2 + 3 layers whose norms are computed in double precision."""
    settings = {
        "vocab_size": 384, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64, "max_position_embeddings": 128, "init_std": 0.25,
        "decoder_start_token_id": 2, "forced_eos_token_id": None, "bos_token_id": 0,
        "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.BartConfig(**settings | changes)
    return transformers.BartForConditionalGeneration(config).eval().double()


def case(kind):
    """One of `KINDS`, or ``"bart"``."""
    make = {
        "gpt2": tiny.gpt2,
        "llama": tiny.llama,
        "t5": tiny.t5,
        "bart": _bart,
        "bert-classifier": tiny.bert_classifier,
        "bert-mlm": tiny.bert_mlm,
    }[kind]
    if kind.startswith("bert"):
        tokenizer = tiny.word_tokenizer()
        prompt = MASKED if kind == "bert-mlm" else PROMPT
        target = "red blue" if kind == "bert-mlm" else "neutral"
    else:
        tokenizer = tiny.byte_tokenizer(bos=kind == "llama")
        prompt, target = PROMPT, OUTPUT
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    spans = [(start + (prompt[start:end][:1] == " "), end) for start, end in
             encoded["offset_mapping"]]  # fmt: skip
    special = {*tokenizer.all_special_ids}
    places = [i for i, index in enumerate(encoded["input_ids"]) if index not in special]
    output = tokenizer(target, add_special_tokens=False)["input_ids"]
    return Case(
        kind=kind,
        make=make,
        tokenizer=tokenizer,
        prompt=prompt,
        target=target,
        ids=encoded["input_ids"],
        output=[1] if kind == "bert-classifier" else output,
        units=[spans[place] for place in places],
        places=places,
    )
