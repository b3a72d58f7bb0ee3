# SPDX-License-Identifier: Apache-2.0
"""One prompt with several targets on each kind of tiny model, with the oracle of each."""

import re
from dataclasses import dataclass, field

import numpy as np
import torch
from pizza_local import LocalBackend
from support import oracles, tiny

import pizza

PROMPT = "Ana has 3 red apples, naïve café"
OUTPUT = " Bob has 5"
OTHER = " green pears?"
TEXT = "this film was [MASK] terrible and the [MASK] was great"
BAG = "Great food, but the service was slow and the food cold"
WORDS = {"great": 0, "food": 1, "service": 2, "slow": 3, "terrible": 4, "was": 5, "and": 6}
LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A model, a prompt, and what can be explained of it.

    Attributes:
        kind: One of `oracles.KINDS`.
        model: The model.
        open: Makes a backend of it.
        prompt: The prompt's text.
        words: The units for ``units="word"``, (start, end).
        token_spans: Where each of the prompt's tokens stands.
        targets: Per name what to ask for, and the oracle of it.
        ids: Token ids of the prompt.
    """

    kind: str
    model: object
    open: object
    prompt: str
    words: tuple
    token_spans: tuple
    targets: dict = field(default_factory=dict)
    ids: tuple = ()
    again: object = None
    """An oracle's reading of another prompt, from (text, targets)."""

    @property
    def tolerance(self):
        """Relative to the largest score.

        transformers computes the norms of Llama and T5 in single precision, whatever the model's
        precision is: there two orders of summation agree to no more than that.
        """
        single = next(self.model.parameters()).dtype == torch.float32
        return 1e-5 if single or self.kind in ("llama", "t5") else 1e-9

    def units(self, scores, how="sum"):
        """Scores of words from scores of tokens."""
        return oracles.to_units(np.asarray(scores), self.token_spans, self.words, how)

    async def ask(self, session, method, target="text", **options):
        """The product's own answer, for words."""
        return await session.attribute(
            self.prompt,
            method=method,
            target=self.targets[target][0],
            generation=pizza.Generation(max_tokens=3),
            **{"units": list(self.words), **options},
        )

    async def attribute(self, method, target="text", **options):
        """The same, in a session of its own."""
        async with pizza.Session(self.open()) as session:
            return await self.ask(session, method, target, **options)

    def expected(self, target, scores, how="sum"):
        """Scores of words with the rows of tokens outside of a span left out."""
        units = self.units(scores.detach(), how)
        window = self.targets[target][1].window
        if window is not None:
            units[1 : 1 + window[0]] = np.nan
            units[1 + window[1] :] = np.nan
        return units

    def leave_one_out(self, target, stands_in):
        """Fall of the log-probability when one word after the other is replaced."""
        reading = self.targets[target][1].reading
        changed = [
            self.again(self.prompt[:start] + stands_in + self.prompt[end:], reading.targets)
            for start, end in self.words
        ]
        with torch.no_grad():
            clean, *others = [
                oracles.values(one, one.start(), "logprob", 0) for one in (reading, *changed)
            ]
        each = torch.stack([clean - other for other in others], dim=1)
        return torch.cat([each.sum(0, keepdim=True), each]).numpy()


def words_of(text):
    """Words and what else is not white space, as (start, end)."""
    return tuple(match.span() for match in re.finditer(r"\S+", text))


def _inside(spans, words):
    return tuple(any(a < end and start < b for a, b in words) for start, end in spans)


def _greedy(model, ids, n, **inputs):
    """The most likely continuation, one whole forward pass a token."""
    written = []
    for _ in range(n):
        with torch.no_grad():
            if "decoder" in inputs:
                begun = torch.tensor([[inputs["decoder"], *written]])
                logits = model(input_ids=torch.tensor([ids]), decoder_input_ids=begun).logits
            else:
                logits = model(input_ids=torch.tensor([[*ids, *written]])).logits
        written.append(int(logits[0, -1].argmax()))
    return written


def _written(kind, model, tokenizer):
    encoded = tokenizer(PROMPT, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], tuple(encoded["offset_mapping"])
    words = words_of(PROMPT)
    inside = _inside(spans, words)
    decoder = {"decoder": model.config.decoder_start_token_id} if kind == "t5" else {}

    def explained(output, versus=None, window=None):
        other = None if versus is None else oracles.Reading(model, ids, versus)
        return oracles.Explained(
            reading=oracles.Reading(model, ids, output), versus=other, window=window, inside=inside
        )

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    own = encode(OUTPUT)
    at = tokenizer(OUTPUT, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return Case(
        kind=kind,
        model=model,
        open=lambda **options: LocalBackend(model, tokenizer, **options),
        prompt=PROMPT,
        words=words,
        token_spans=spans,
        ids=tuple(ids),
        again=lambda text, output: oracles.Reading(model, tokenizer(text)["input_ids"], output),
        targets={
            "text": (pizza.Target.given(OUTPUT), explained(own)),
            "tokens": (pizza.Target.tokens([70, 300, 9]), explained([70, 300, 9])),
            "span": (
                pizza.Target.given(OUTPUT, span=(at[1][0], at[2][1])),
                explained(own, window=(1, 3)),
            ),
            "contrast": (pizza.Target.contrast(OUTPUT, OTHER), explained(own, encode(OTHER))),
            "completion": (
                pizza.Target.completion(),
                explained(_greedy(model, ids, 3, **decoder)),
            ),
        },
    )


def _classified(model):
    tokenizer = tiny.word_tokenizer()
    prompt = "this film was not terrible and the food was great"
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    ids, spans, words = encoded["input_ids"], tuple(encoded["offset_mapping"]), words_of(prompt)
    inside = _inside(spans, words)

    def explained(label, versus=None):
        sides = [None if x is None else oracles.Reading(model, ids, [x]) for x in (label, versus)]
        return oracles.Explained(reading=sides[0], versus=sides[1], inside=inside)

    with torch.no_grad():
        likely = int(model(input_ids=torch.tensor([ids])).logits.argmax())
    return Case(
        kind="bert-classifier",
        model=model,
        open=lambda **options: LocalBackend(model, tokenizer, **options),
        prompt=prompt,
        words=words,
        token_spans=spans,
        ids=tuple(ids),
        again=lambda text, output: oracles.Reading(model, tokenizer(text)["input_ids"], output),
        targets=_labels(explained, likely),
    )


def _labels(explained, likely):
    return {
        "text": (pizza.Target.label("positive"), explained(2)),
        "tokens": (pizza.Target.tokens([1]), explained(1)),
        "contrast": (pizza.Target.contrast("positive", "negative"), explained(2, 0)),
        "completion": (pizza.Target.completion(), explained(likely)),
    }


def _filled(model):
    tokenizer = tiny.word_tokenizer()
    encoded = tokenizer(TEXT, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], tuple(encoded["offset_mapping"])
    words = tuple(span for span in words_of(TEXT) if TEXT[slice(*span)] != "[MASK]")
    inside = _inside(spans, words)

    def reading(output):
        return oracles.Reading(model, ids, output, mask=tokenizer.mask_token_id)

    def explained(output, versus=None, window=None):
        other = None if versus is None else reading(versus)
        return oracles.Explained(
            reading=reading(output), versus=other, window=window, inside=inside
        )

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    likely = [int(logits[place].argmax()) for place in reading([]).masks]
    return Case(
        kind="bert-mlm",
        model=model,
        open=lambda **options: LocalBackend(model, tokenizer, **options),
        prompt=TEXT,
        words=words,
        token_spans=spans,
        ids=tuple(ids),
        again=lambda text, output: oracles.Reading(
            model, tokenizer(text)["input_ids"], output, mask=tokenizer.mask_token_id
        ),
        targets={
            "text": (pizza.Target.given("not food"), explained(encode("not food"))),
            "tokens": (pizza.Target.tokens([9, 40]), explained([9, 40])),
            "span": (
                pizza.Target.tokens(encode("not food"), span=(4, 8)),
                explained(encode("not food"), window=(1, 2)),
            ),
            "contrast": (
                pizza.Target.contrast("not food", "film service"),
                explained(encode("not food"), encode("film service")),
            ),
            "completion": (pizza.Target.completion(), explained(likely)),
        },
    )


def bag_module(dtype=torch.float64):
    """A feed-forward classifier of word counts."""
    torch.manual_seed(0)
    made = torch.nn.Sequential(
        torch.nn.Linear(len(WORDS), 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    )
    return made.eval().to(dtype)


def _counted(model):
    def find(text):
        return [
            (match.span(), WORDS[match[0].lower()])
            for match in re.finditer(r"\w+", text)
            if match[0].lower() in WORDS
        ]

    spans = tuple(span for span, _ in find(BAG))
    features = [feature for _, feature in find(BAG)]

    def bag(label):
        return None if label is None else oracles.Bag(model, features, len(WORDS), label)

    def explained(label, versus=None):
        return oracles.Explained(
            reading=bag(label), versus=bag(versus), inside=(True,) * len(features)
        )

    likely = int(bag(0).logits(0, bag(0).start()).argmax())
    return Case(
        kind="bag-of-words",
        model=model,
        open=lambda **options: LocalBackend.from_features(model, WORDS, LABELS, **options),
        prompt=BAG,
        words=words_of(BAG),
        token_spans=spans,
        again=lambda text, output: oracles.Bag(
            model, [feature for _, feature in find(text)], len(WORDS), output[0]
        ),
        targets=_labels(explained, likely),
    )


def make(kind, dtype=torch.float64, seed=0):
    """The case of a kind of model."""
    if kind == "gpt2":
        return _written(kind, tiny.gpt2(dtype, seed=seed), tiny.byte_tokenizer())
    if kind == "llama":
        return _written(kind, tiny.llama(dtype, seed=seed), tiny.byte_tokenizer(bos=True))
    if kind == "t5":
        return _written(kind, tiny.t5(dtype, seed=seed), tiny.byte_tokenizer())
    if kind == "bert-classifier":
        return _classified(tiny.bert_classifier(dtype, seed=seed))
    if kind == "bert-mlm":
        return _filled(tiny.bert_mlm(dtype, seed=seed))
    return _counted(bag_module(dtype))
