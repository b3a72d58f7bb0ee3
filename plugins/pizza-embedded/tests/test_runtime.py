# SPDX-License-Identifier: Apache-2.0
"""Tokenizer, generation and scoring of the shipped weights, against transformers where it is."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pizza_embedded import world
from pizza_embedded.runtime import WEIGHTS, ContextTooLong, Runtime

TEXTS = [
    "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?",
    "The clock shows 9:47 PM. How many minutes 'til 10?",
    "",
    " ",
    "  two  spaces\tand a tab \n\n",
    "a\0b \x7f",
    "مرحبا بالعالم — שלום",
    "😀👩‍👩‍👧 astral 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 x̷̛",
    "日本語のテキスト。",
    "<|user|> is <|end|> ordinary text",
    "don't we're I'LL 3.14 1,000 ___ ... [MASK]",
]
MANY = [*TEXTS, *(e.text for e in world.heldout(60, seed=8, styles=world.STYLES, names="unseen"))]


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime.load()


def chat(runtime: Runtime, text: str) -> list[int]:
    return runtime.apply_chat_template([("user", text)])[0]


def random_text(seed: int) -> str:
    rng = random.Random(seed)
    alphabet = "abcXYZ 0189.,'_\n\t\"éßж中😀\u200d\u0301\u202e"
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 60)))


# --- tokenizer ---


@pytest.mark.parametrize("text", [*TEXTS, *(random_text(seed) for seed in range(40))])
def test_any_text_comes_back_and_offsets_tile_it(runtime: Runtime, text: str) -> None:
    ids, spans = runtime.tokenizer.encode_with_offsets(text)
    assert ids == runtime.tokenizer.encode(text)
    assert runtime.tokenizer.decode(ids) == text
    assert b"".join(runtime.tokenizer.pieces(ids)).decode() == text
    assert [span[0] for span in spans] == [0, *(span[1] for span in spans)][: len(spans)]
    assert not spans or spans[-1][1] == len(text)


def test_lone_surrogates_encode(runtime: Runtime) -> None:
    ids, spans = runtime.tokenizer.encode_with_offsets("a \ud800 b")
    assert len(ids) == len(spans)


def test_special_tokens_in_a_text_are_text(runtime: Runtime) -> None:
    special = set(runtime.tokenizer.special.values())
    assert not special & set(runtime.tokenizer.encode("<|end|><|user|>"))
    ids, _ = runtime.apply_chat_template([("user", "<|end|>")])
    assert [token for token in ids if token in special] == [
        runtime.tokenizer.special[name] for name in ("<|user|>", "<|end|>", "<|assistant|>")
    ]


def test_words_are_the_same_tokens_wherever_they_stand(runtime: Runtime) -> None:
    ids = runtime.tokenizer.encode("Bob saw Bob")
    n_name = len(runtime.tokenizer.encode("Bob"))
    assert ids[:n_name] == ids[-n_name:] == runtime.tokenizer.encode("Bob")


def test_template_segments_point_into_the_messages(runtime: Runtime) -> None:
    messages = [("system", "Be brief."), ("user", "Who has 5 pears? 😀")]
    ids, segments = runtime.apply_chat_template(messages)
    assert len(ids) == len(segments)
    texts = ["", ""]
    for segment in segments:
        if segment is not None:
            message, start, end = segment
            texts[message] += messages[message][1][start:end]
    assert texts == [text for _, text in messages]
    assert segments.count(None) == 5


def test_developer_is_read_as_system_and_unknown_roles_are_refused(runtime: Runtime) -> None:
    as_system = runtime.apply_chat_template([("system", "x")])
    assert runtime.apply_chat_template([("developer", "x")]) == as_system
    with pytest.raises(ValueError, match=r"'tool'.*system, developer, user, assistant"):
        runtime.apply_chat_template([("tool", "x")])


# --- generation and scoring ---


def test_results_do_not_depend_on_the_batch(runtime: Runtime) -> None:
    examples = world.heldout(60, seed=9, styles=world.STYLES)
    prompts = [chat(runtime, example.text) for example in examples] + [chat(runtime, "a b " * 150)]
    together = runtime.generate(prompts, max_new_tokens=6, top_logprobs=3)
    for prompt, result in list(zip(prompts, together, strict=True))[::7]:
        (alone,) = runtime.generate([prompt], max_new_tokens=6, top_logprobs=3)
        assert alone.token_ids == result.token_ids
        assert alone.finish_reason == result.finish_reason
        np.testing.assert_allclose(alone.logprobs, result.logprobs, atol=1e-5)


def test_generated_logprobs_are_those_of_scoring(runtime: Runtime) -> None:
    prompts = [chat(runtime, text) for text in TEXTS]
    results = runtime.generate(prompts, max_new_tokens=40, top_logprobs=5, stop_ids=[])
    pairs = [(p, r.token_ids) for p, r in zip(prompts, results, strict=True)]
    scores = runtime.score(pairs, top_logprobs=5)
    for result, score in zip(results, scores, strict=True):
        assert len(result.token_ids) == 40
        assert result.finish_reason == "length"
        np.testing.assert_allclose(result.logprobs, score.logprobs, atol=1e-4)
        for token, logprob, top in zip(result.token_ids, result.logprobs, result.top, strict=True):
            assert top[0] == (token, logprob)
            assert [value for _, value in top] == sorted((v for _, v in top), reverse=True)


def test_score_all_gives_every_token_but_the_first(runtime: Runtime) -> None:
    ids = chat(runtime, TEXTS[0])
    scored = runtime.score_all(ids, top_logprobs=2)
    assert len(scored.logprobs) == len(scored.top) == len(ids)
    assert scored.logprobs[0] is None
    assert scored.top[0] == ()
    assert all(value is not None and value <= 0 for value in scored.logprobs[1:])
    (tail,) = runtime.score([(ids[:-3], ids[-3:])])
    np.testing.assert_allclose(scored.logprobs[-3:], tail.logprobs, atol=1e-5)


def test_full_distribution_sums_to_one(runtime: Runtime) -> None:
    prompt = chat(runtime, TEXTS[0])
    (result,) = runtime.generate([prompt], max_new_tokens=1, top_logprobs=5000)
    assert len(result.top[0]) == runtime.vocab_size
    assert sum(np.exp([value for _, value in result.top[0]])) == pytest.approx(1.0, abs=1e-5)


def test_sampling_follows_its_seed_and_not_the_batch(runtime: Runtime) -> None:
    prompt = chat(runtime, "Tell me about rivers and trains.")
    seeds = list(range(8))
    drawn = runtime.generate([prompt] * 8, max_new_tokens=8, temperature=3.0, seeds=seeds)
    again = [
        runtime.generate([prompt], max_new_tokens=8, temperature=3.0, seeds=[seed])[0]
        for seed in seeds
    ]
    assert [r.token_ids for r in drawn] == [r.token_ids for r in again]
    assert len({r.token_ids for r in drawn}) > 1


def test_threads_share_a_runtime(runtime: Runtime) -> None:
    prompts = [chat(runtime, example.text) for example in world.heldout(24, seed=10)]
    expected = [r.token_ids for r in runtime.generate(prompts, max_new_tokens=6)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda p: runtime.generate([p], max_new_tokens=6)[0].token_ids, prompts)
        assert list(found) == expected


def test_empty_things(runtime: Runtime) -> None:
    assert runtime.generate([], max_new_tokens=4) == []
    assert runtime.score([]) == []
    assert runtime.score_all([]).logprobs == ()
    (nothing,) = runtime.generate([chat(runtime, "x")], max_new_tokens=0)
    assert (nothing.token_ids, nothing.finish_reason) == ((), "length")
    (started,) = runtime.generate([[]], max_new_tokens=2)
    assert started.finish_reason in ("stop", "length")
    (scored,) = runtime.score([([], [7])])
    assert len(scored.logprobs) == 1
    assert runtime.score([([7], [])])[0].logprobs == ()


def test_too_long_says_limit_and_length(runtime: Runtime) -> None:
    ids = [7] * (runtime.context_length + 5)
    with pytest.raises(ContextTooLong, match=r"1029 tokens.*at most 1023") as caught:
        runtime.generate([ids], max_new_tokens=1)
    assert (caught.value.limit, caught.value.got) == (1023, 1029)
    with pytest.raises(ContextTooLong):
        runtime.score_all(ids)


def test_a_full_context_ends_the_text(runtime: Runtime) -> None:
    ids = [7] * (runtime.context_length - 2)
    (result,) = runtime.generate([ids], max_new_tokens=50, stop_ids=[])
    assert 1 <= len(result.token_ids) <= 3
    assert result.finish_reason == "length"


def test_weights_cannot_be_changed_through_the_runtime(runtime: Runtime) -> None:
    assert runtime.embeddings.shape[0] == runtime.vocab_size
    with pytest.raises(ValueError, match="read-only"):
        runtime.embeddings[0, 0] = 1.0


def test_package_stays_small() -> None:
    total = sum(path.stat().st_size for path in WEIGHTS.iterdir())
    assert total < 4_000_000


# --- the same in transformers ---


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_transformers_tokenizer_gives_the_same_ids(runtime: Runtime) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(WEIGHTS)
    for text in [*MANY, *(random_text(seed) for seed in range(300))]:
        if "<|" in text:
            continue
        assert theirs(text)["input_ids"] == runtime.tokenizer.encode(text), text
        assert theirs.decode(theirs(text)["input_ids"]) == text
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXTS[0]}]
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    ours, _ = runtime.apply_chat_template([(m["role"], m["content"]) for m in messages])
    assert ids["input_ids"] == ours


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_transformers_model_gives_the_same_logprobs(runtime: Runtime) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    for text in [text for text in MANY if text][:24]:
        ids = chat(runtime, text)
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
        ours = runtime.score_all(ids).logprobs[1:]
        np.testing.assert_allclose(ours, theirs[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
    ids = chat(runtime, TEXTS[0])
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :]
    (ours,) = runtime.generate([ids], max_new_tokens=8)
    assert theirs.tolist() == [*ours.token_ids, runtime.eos_id]
