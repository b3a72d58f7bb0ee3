# SPDX-License-Identifier: Apache-2.0
"""Every kind of model completes, scores and is perturbed as plain torch says."""

import numpy as np
import pytest
from support import tiny

import pizza
from pizza.errors import BadRequestError, ContextTooLongError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local import LocalBackend  # noqa: E402

PROMPTS = [
    "Ana has 3 red apples. How many?",
    "The hat is red",
    "Bob has 5 green pears and the mug is blue. How many pears does Bob have?",
    "café 😀",
]
MASKED = [
    "Ana has 3 [MASK] apples",
    "the hat is [MASK]",
    "Bob has [MASK] green pears and the mug is blue",
    "the [MASK] is red and the hat is red",
]


class Kind:
    """A model, its tokenizer, prompts that it reads, and its logits by plain torch."""

    def __init__(self, make, tokenizer, prompts, target):
        self.model, self.tokenizer, self.prompts, self.target = make(), tokenizer, prompts, target

    def ids(self, prompt):
        return self.tokenizer(prompt, return_tensors="pt")["input_ids"]

    def target_ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def text(self, ids):
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    def logs(self, prompt, target):
        """Log-probabilities of all entries at each place of the output, ``(n, vocabulary)``."""
        raise NotImplementedError

    def written(self, prompt, room):
        """Ids of the output that the model writes by itself."""
        raise NotImplementedError

    def logprobs(self, prompt, target):
        logs = self.logs(prompt, target)
        return logs[torch.arange(len(target)), torch.tensor(target)].numpy()


class Causal(Kind):
    def logs(self, prompt, target):
        ids = self.ids(prompt)
        whole = torch.cat([ids, torch.tensor([target])], dim=1)
        with torch.no_grad():
            logits = self.model(input_ids=whole).logits
        return logits[0, ids.shape[1] - 1 : -1].log_softmax(-1)

    def written(self, prompt, room):
        ids = self.ids(prompt)
        found = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=room,
            pad_token_id=2,
        )
        return [i for i in found[0, ids.shape[1] :].tolist() if i != 1]


class EncoderDecoder(Kind):
    def logs(self, prompt, target):
        before = torch.tensor([[2, *target[:-1]]])
        with torch.no_grad():
            logits = self.model(input_ids=self.ids(prompt), decoder_input_ids=before).logits
        return logits[0].log_softmax(-1)

    def written(self, prompt, room):
        found = self.model.generate(
            input_ids=self.ids(prompt), do_sample=False, max_new_tokens=room
        )
        return [i for i in found[0, 1:].tolist() if i != 1]


class Classifier(Kind):
    labels = ("negative", "neutral", "positive")

    def target_ids(self, text):
        return [self.labels.index(text)]

    def text(self, ids):
        return self.labels[ids[0]]

    def logs(self, prompt, target):
        with torch.no_grad():
            return self.model(input_ids=self.ids(prompt)).logits.log_softmax(-1)

    def written(self, prompt, room):
        return [int(self.logs(prompt, [0]).argmax())]


class Masked(Kind):
    def text(self, ids):
        return " ".join(self.tokenizer.decode([i]) for i in ids)

    def logs(self, prompt, target):
        ids = self.ids(prompt)
        at = (ids[0] == self.tokenizer.mask_token_id).nonzero().flatten()
        with torch.no_grad():
            logits = self.model(input_ids=ids).logits
        return logits[0, at].log_softmax(-1)

    def written(self, prompt, room):
        return self.logs(prompt, None).argmax(-1).tolist()


MAKERS = {
    "gpt2": lambda: Causal(tiny.gpt2, tiny.byte_tokenizer(), PROMPTS, " red pears"),
    "llama": lambda: Causal(tiny.llama, tiny.byte_tokenizer(bos=True), PROMPTS, " red pears"),
    "t5": lambda: EncoderDecoder(tiny.t5, tiny.byte_tokenizer(), PROMPTS, " red pears"),
    "classifier": lambda: Classifier(
        tiny.bert_classifier, tiny.word_tokenizer(), PROMPTS[:3], "neutral"
    ),
    "masked": lambda: Masked(tiny.bert_mlm, tiny.word_tokenizer(), MASKED, "red"),
}
WRITERS = ["gpt2", "llama", "t5"]


@pytest.fixture(params=MAKERS)
def kind(request):
    return MAKERS[request.param]()


@pytest.fixture(params=WRITERS)
def writer(request):
    return MAKERS[request.param]()


def ask(prompt, *, target=None, ids=None, top=3, **generation):
    return pizza.Request(
        prompt=pizza.Prompt.of(prompt),
        kind="complete" if target is None else "score",
        target=target,
        target_ids=ids,
        generation=pizza.Generation(top_logprobs=top, **generation),
    )


async def answers(kind, requests, **options):
    """The answers of one batch, in the order of the requests; failures as values."""
    backend = LocalBackend(kind.model, kind.tokenizer, **options)
    try:
        found = {}
        async for place, result in backend.answer_batch(requests):
            assert place not in found
            found[place] = result if isinstance(result, Exception) else result.completion
        assert sorted(found) == list(range(len(requests)))
        return [found[place] for place in range(len(requests))]
    finally:
        await backend.aclose()


def same(values, reference):
    np.testing.assert_allclose(values, reference, rtol=1e-9, atol=1e-9)


# --- completing ---------------------------------------------------------------------------------


async def test_greedy_is_what_the_model_writes_by_itself(kind):
    together = await answers(kind, [ask(p, max_tokens=6) for p in kind.prompts])
    for prompt, completion in zip(kind.prompts, together, strict=True):
        ids = kind.written(prompt, 6)
        assert list(completion.token_ids) == ids
        assert completion.text == kind.text(ids)
        same(completion.logprobs, kind.logprobs(prompt, ids))


async def test_one_by_one_is_the_same_as_together(kind):
    requests = [ask(p, max_tokens=5) for p in kind.prompts]
    together = await answers(kind, requests)
    for request, one in zip(requests, together, strict=True):
        (alone,) = await answers(kind, [request])
        assert alone.token_ids == one.token_ids
        same(alone.logprobs, one.logprobs)
        assert alone.alternative_tokens == one.alternative_tokens


async def test_max_tokens_ends_an_output(writer):
    (long, short) = await answers(writer, [ask(PROMPTS[0], max_tokens=n) for n in (6, 2)])
    assert short.token_ids == long.token_ids[:2]
    assert short.finish_reason == "length"


async def test_the_end_token_ends_an_output_and_is_no_part_of_it(writer):
    (whole,) = await answers(writer, [ask(PROMPTS[0], max_tokens=6)])
    end = whole.token_ids[-1]
    first = whole.token_ids.index(end)
    writer.model.generation_config.eos_token_id = [1, end]
    (ended,) = await answers(writer, [ask(PROMPTS[0], max_tokens=6)])
    assert ended.token_ids == whole.token_ids[:first]
    assert ended.finish_reason == "stop"
    # Nobody else's output ends with it.
    other, again = await answers(writer, [ask(PROMPTS[1], max_tokens=4), ask(PROMPTS[0])])
    assert again.token_ids == ended.token_ids
    assert end not in other.token_ids


async def test_a_stop_string_ends_an_output_before_it(writer):
    (whole,) = await answers(writer, [ask(PROMPTS[2], max_tokens=12)])
    mark = whole.tokens[-1]
    if not mark.strip() or "\\x" in mark:
        mark = next(t for t in reversed(whole.tokens) if t.strip() and "\\x" not in t)
    requests = [ask(PROMPTS[2], max_tokens=12, stop=(mark,)), ask(PROMPTS[0], max_tokens=12)]
    stopped, other = await answers(writer, requests)
    assert mark not in stopped.text
    assert whole.text.startswith(stopped.text)
    assert stopped.finish_reason == "stop"
    assert len(stopped.token_ids) == len(stopped.logprobs) < len(whole.token_ids)
    (alone,) = await answers(writer, requests[1:])
    assert other.token_ids == alone.token_ids


async def test_a_seeded_sample_repeats_whoever_else_is_asked(writer):
    def drawn(seed):
        return ask(PROMPTS[0], max_tokens=8, temperature=1.5, seed=seed)

    before = torch.get_rng_state()
    first = await answers(writer, [drawn(1), drawn(2), drawn(1)])
    (second,) = await answers(writer, [drawn(2)])
    assert torch.equal(torch.get_rng_state(), before)
    assert first[0].token_ids == first[2].token_ids
    assert first[1].token_ids == second.token_ids
    assert first[0].token_ids != first[1].token_ids
    # The log-probabilities of a sample are the model's, not those of the temperature.
    same(first[0].logprobs, writer.logprobs(PROMPTS[0], list(first[0].token_ids)))


async def test_repetitions_of_a_sample_differ(writer):
    request = ask(PROMPTS[0], max_tokens=8, temperature=2.0, seed=5)
    from dataclasses import replace

    one, two = await answers(writer, [request, replace(request, sample=1)])
    assert one.token_ids != two.token_ids


async def test_what_a_model_brings_along_for_chatting_does_not_bend_greedy(writer, caplog):
    expected = [writer.written(p, 6) for p in PROMPTS]
    config = writer.model.generation_config
    config.repetition_penalty, config.no_repeat_ngram_size, config.num_beams = 3.0, 2, 3
    config.do_sample, config.temperature, config.top_p, config.top_k = True, 0.3, 0.5, 7
    found = await answers(writer, [ask(p, max_tokens=6) for p in PROMPTS])
    assert [list(one.token_ids) for one in found] == expected
    assert not caplog.records


async def test_extra_arguments_of_generation_are_passed_on_to_those_who_asked(writer):
    plain = ask(PROMPTS[0], max_tokens=8)
    bent = ask(PROMPTS[0], max_tokens=8, extra={"no_repeat_ngram_size": 1})
    one, two, three = await answers(writer, [plain, bent, plain])
    assert one.token_ids == three.token_ids
    assert len(set(two.token_ids)) == len(two.token_ids)


async def test_extra_arguments_that_mean_nothing_are_refused(writer):
    wrong = ask(PROMPTS[0], max_tokens=2, extra={"do_sampel": True})
    refused, fine = await answers(writer, [wrong, ask(PROMPTS[0], max_tokens=2)])
    assert isinstance(refused, BadRequestError)
    assert "do_sampel" in str(refused)
    assert len(fine.token_ids) == 2


@pytest.mark.parametrize("name", ["classifier", "masked"])
async def test_kinds_that_choose_in_one_step_do_not_sample(name):
    kind = MAKERS[name]()
    refused, fine = await answers(
        kind, [ask(kind.prompts[0], temperature=1.0), ask(kind.prompts[1])]
    )
    assert isinstance(refused, BadRequestError)
    assert "temperature" in str(refused)
    assert list(fine.token_ids) == kind.written(kind.prompts[1], 1)


# --- scoring ------------------------------------------------------------------------------------


async def test_scores_are_the_log_softmax(kind):
    ids = kind.target_ids(kind.target)
    found = await answers(kind, [ask(p, target=kind.target, top=5) for p in kind.prompts])
    for prompt, completion in zip(kind.prompts, found, strict=True):
        assert list(completion.token_ids) == ids
        assert completion.text == kind.target
        logs = kind.logs(prompt, ids)
        same(completion.logprobs, kind.logprobs(prompt, ids))
        best = logs.topk(min(5, logs.shape[-1]))
        same(completion.alternative_logprobs, best.values)
        for row, expected in zip(completion.alternative_tokens, best.indices, strict=True):
            assert row[0] == (
                kind.text([int(expected[0])])
                if "\ufffd" not in kind.text([expected[0]])
                else row[0]
            )
            assert len(row) == len(expected)


async def test_scores_do_not_depend_on_company(kind):
    requests = [ask(p, target=kind.target) for p in kind.prompts]
    together = await answers(kind, requests * 3)
    alone = [(await answers(kind, [request]))[0] for request in requests]
    for place, one in enumerate(together):
        same(one.logprobs, alone[place % len(alone)].logprobs)


@pytest.mark.parametrize("name", WRITERS)
async def test_targets_of_any_ids_are_scored(name):
    kind = MAKERS[name]()
    ids = (11, 300, 4, 200, 1, 0, 383)
    (found,) = await answers(kind, [ask(PROMPTS[0], target="", ids=ids)])
    assert found.token_ids == ids
    same(found.logprobs, kind.logprobs(PROMPTS[0], list(ids)))


async def test_one_that_fails_does_not_spoil_the_others(kind):
    wrong = ask(kind.prompts[0], target="", ids=(100_000,))
    empty = ask(kind.prompts[0], target="")
    fine = [ask(p, target=kind.target) for p in kind.prompts]
    found = await answers(kind, [wrong, *fine, empty])
    assert isinstance(found[0], BadRequestError)
    assert isinstance(found[-1], BadRequestError)
    for prompt, one in zip(kind.prompts, found[1:-1], strict=True):
        same(one.logprobs, kind.logprobs(prompt, kind.target_ids(kind.target)))


LIMITED = {
    "gpt2": lambda: Causal(lambda: tiny.gpt2(n_positions=16), tiny.byte_tokenizer(), [], " red"),
    "llama": lambda: Causal(
        lambda: tiny.llama(max_position_embeddings=16), tiny.byte_tokenizer(), [], " red"
    ),
    "classifier": lambda: Classifier(
        lambda: tiny.bert_classifier(max_position_embeddings=16),
        tiny.word_tokenizer(),
        [],
        "neutral",
    ),
    "masked": lambda: Masked(
        lambda: tiny.bert_mlm(max_position_embeddings=16), tiny.word_tokenizer(), [], "red"
    ),
}


@pytest.mark.parametrize("name", LIMITED)
async def test_a_prompt_longer_than_the_context_is_refused_alone(name):
    kind = LIMITED[name]()
    mark = "[MASK] " if name == "masked" else ""
    short, long = mark + "the hat", mark + "the hat is red " * 8
    found = await answers(
        kind,
        [
            ask(long, target=kind.target),
            ask(short, target=kind.target),
            ask(long),
            ask(short, max_tokens=2),
        ],
    )
    for refused in (found[0], found[2]):
        assert isinstance(refused, ContextTooLongError)
        assert refused.limit == 16
        assert refused.got > 16
    same(found[1].logprobs, kind.logprobs(short, kind.target_ids(kind.target)))
    assert list(found[3].token_ids) == kind.written(short, 2)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
async def test_prompt_and_target_fill_the_context_to_the_last_place(name):
    kind = LIMITED[name]()
    ids = tuple(kind.ids("the hat is red and blue")[0].tolist())
    n = 16 - len(ids) + 1
    fits, not_fits = tuple(range(20, 20 + n)), tuple(range(20, 21 + n))
    found = await answers(
        kind,
        [
            ask("the hat is red and blue", target="", ids=fits),
            ask("the hat is red and blue", target="", ids=not_fits),
        ],
    )
    with torch.no_grad():
        whole = torch.tensor([[*ids, *fits[:-1]]])
        logs = kind.model(input_ids=whole).logits[0, len(ids) - 1 :].log_softmax(-1)
    same(found[0].logprobs, logs[torch.arange(n), torch.tensor(fits)])
    assert isinstance(found[1], ContextTooLongError)


async def test_a_text_to_be_filled_needs_a_mask():
    kind = MAKERS["masked"]()
    refused, fine = await answers(kind, [ask("no mask here"), ask(MASKED[0])])
    assert isinstance(refused, BadRequestError)
    assert "[MASK]" in str(refused)
    assert list(fine.token_ids) == kind.written(MASKED[0], 1)


async def test_a_label_is_found_by_name_in_any_case():
    kind = MAKERS["classifier"]()
    found = await answers(kind, [ask(PROMPTS[0], target=t) for t in ("Neutral", "nice")])
    assert found[0].token_ids == (1,)
    assert isinstance(found[1], BadRequestError)
    assert "negative, neutral, positive" in str(found[1])


# --- a decoder as a classifier ------------------------------------------------------------------


@pytest.mark.parametrize("pad", [None, 2])
async def test_a_decoder_with_a_classifiers_head_is_a_classifier(pad):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=64, vocab_size=384, num_labels=3,
        initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=pad,
        id2label={0: "negative", 1: "neutral", 2: "positive"},
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config).eval().double()
    kind = Classifier(lambda: model, tiny.byte_tokenizer(), PROMPTS, "neutral")
    found = await answers(kind, [ask(p, target="neutral") for p in PROMPTS])
    for prompt, one in zip(PROMPTS, found, strict=True):
        same(one.logprobs, kind.logprobs(prompt, [1]))
    async with pizza.Session(LocalBackend(model, kind.tokenizer)) as session:
        result = await session.attribute(PROMPTS[1], method="integrated-gradients:steps=3")
    assert np.isfinite(result.unit_scores).all()


# --- perturbing ---------------------------------------------------------------------------------


def without(prompt, unit, put=""):
    """The prompt with one unit deleted or replaced, as a plain text."""
    return prompt[: unit.start] + put + prompt[unit.end :]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("strategy", ["fixed:text=blue", "fixed:text="])
async def test_leave_one_out_is_the_loss_of_each_word(name, strategy):
    kind = MAKERS[name]()
    prompt, put = kind.prompts[0], strategy.partition("=")[2]
    async with pizza.Session(LocalBackend(kind.model, kind.tokenizer)) as session:
        result = await session.attribute(prompt, target=kind.target, perturbation=strategy)
    ids = kind.target_ids(kind.target)
    reference = kind.logprobs(prompt, ids)
    for number, unit in enumerate(result.units):
        lost = reference - kind.logprobs(without(prompt, unit, put), ids)
        same(result.scores[1:, number], lost)
        same(result.scores[0, number], lost.sum())


METHODS = ["leave-one-out", "hierarchical", "sliding-window:size=2,stride=1"]
PERTURBATIONS = ["delete", "fixed:text=...", "mask-token", "nth-nearest"]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("perturbation", PERTURBATIONS)
async def test_every_coalition_of_every_method_is_what_plain_torch_says(name, perturbation):
    kind = MAKERS[name]()
    seen = {}

    class Watched(LocalBackend):
        async def answer_batch(self, requests):
            asked = list(requests)
            async for place, result in super().answer_batch(asked):
                assert asked[place].kind == "score"
                seen[asked[place].prompt.text] = result.completion.logprobs
                yield place, result

    if perturbation == "mask-token" and name != "classifier":
        # Without a mask token of its own, or with masks that are the question already.
        perturbation = "mask-token:token=blue"
    ids = kind.target_ids(kind.target)
    reference = kind.logprobs(kind.prompts[0], ids)
    async with pizza.Session(Watched(kind.model, kind.tokenizer)) as session:
        results = [
            await session.attribute(
                kind.prompts[0], target=kind.target, perturbation=perturbation, method=method
            )
            for method in METHODS
        ]
    for text, logprobs in seen.items():
        same(logprobs, kind.logprobs(text, ids))
    effects = np.array([reference.sum() - logprobs.sum() for logprobs in seen.values()])
    for result in results:
        # What was measured is what was answered for the texts that were sent.
        measured = result.evaluations.effects["logprob-diff"][:, 0]
        assert len(measured) >= 2
        assert all(np.abs(effects - value).min() < 1e-9 for value in measured)


# --- targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
async def test_the_models_own_completion_is_scored_by_its_own_tokens(name):
    kind = MAKERS[name]()
    prompt = kind.prompts[0]
    async with pizza.Session(LocalBackend(kind.model, kind.tokenizer)) as session:
        result = await session.attribute(
            prompt, perturbation="fixed:text=blue", generation=pizza.Generation(max_tokens=4)
        )
    ids = kind.written(prompt, 4)
    assert list(result.output.token_ids) == ids
    lost = kind.logprobs(prompt, ids) - kind.logprobs(without(prompt, result.units[0], "blue"), ids)
    same(result.scores[1:, 0], lost)


@pytest.mark.parametrize("name", WRITERS)
async def test_tokens_a_span_and_a_contrast(name):
    kind = MAKERS[name]()
    prompt = PROMPTS[0]
    async with pizza.Session(LocalBackend(kind.model, kind.tokenizer)) as session:

        async def explain(target):
            return await session.attribute(prompt, target=target, perturbation="fixed:text=blue")

        ids = [11, 12, 13]
        tokens = await explain(pizza.Target.tokens(ids))
        changed = without(prompt, tokens.units[2], "blue")
        lost = kind.logprobs(prompt, ids) - kind.logprobs(changed, ids)
        same(tokens.scores[1:, 2], lost)
        same(tokens.scores[0, 2], lost.sum())
        assert tokens.output.token_ids == tuple(ids)

        text = kind.text(kind.target_ids(" red green"))
        span = await explain(pizza.Target.given(text, span=(4, 10)))
        ids = kind.target_ids(text)
        lost = kind.logprobs(prompt, ids) - kind.logprobs(changed, ids)
        first, last = span.output.token_window((4, 10))
        same(span.scores[0, 2], lost[first:last].sum())

        contrast = await explain(pizza.Target.contrast(" red", " green pears"))
        change = 0.0
        for text, sign in ((" red", 1), (" green pears", -1)):
            ids = kind.target_ids(text)
            lost = kind.logprobs(prompt, ids) - kind.logprobs(changed, ids)
            change += sign * lost.sum()
        same(contrast.scores[0, 2], change)


async def test_a_label_is_a_target_of_classifiers_only():
    kind = MAKERS["classifier"]()
    prompt = PROMPTS[0]
    async with pizza.Session(LocalBackend(kind.model, kind.tokenizer)) as session:
        result = await session.attribute(
            prompt, target=pizza.Target.label("negative"), perturbation="fixed:text=blue"
        )
    lost = kind.logprobs(prompt, [0]) - kind.logprobs(without(prompt, result.units[1], "blue"), [0])
    same(result.scores[0, 1], lost[0])
    assert result.output.tokens == ("negative",)
    writer = MAKERS["gpt2"]()
    async with pizza.Session(LocalBackend(writer.model, writer.tokenizer)) as session:
        with pytest.raises(pizza.CapabilityError, match="class label"):
            await session.attribute(prompt, target=pizza.Target.label("negative"))


async def test_masks_are_in_no_unit_and_never_perturbed():
    kind = MAKERS["masked"]()
    async with pizza.Session(LocalBackend(kind.model, kind.tokenizer)) as session:
        result = await session.attribute(MASKED[3])
    assert "[MASK]" not in [u.text for u in result.units]
    assert [f.reason for f in result.prompt.fixed] == ["special token"]


async def test_further_masks_would_be_another_question():
    kind = MAKERS["masked"]()
    async with pizza.Session(LocalBackend(kind.model, kind.tokenizer)) as session:
        with pytest.raises(BadRequestError, match="let something else stand in"):
            await session.attribute(MASKED[0], perturbation="mask-token")
