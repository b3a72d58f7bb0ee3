# SPDX-License-Identifier: Apache-2.0
"""Finding a target's tokens; scoring on chat servers; the probe."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pizza_openai.errors import UnknownModelError
from pizza_openai.scoring import Step, align_echo, align_tail

from pizza.capability import Capability
from pizza.completion import Completion
from pizza.errors import (
    AuthError,
    BackendUnavailableError,
    BadRequestError,
    CapabilityError,
    RetriesExhaustedError,
)


def steps(*texts):
    return [Step(text=t, logprob=-float(i + 1)) for i, t in enumerate(texts)]


def found(result):
    return None if result is None else [(s.text, s.logprob) for s in result.steps]


TURN = ["<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]


@pytest.mark.parametrize(
    ("texts", "target", "expected"),
    [
        # The end of the prompt is the target.
        (["Say", ":", " five", " pears"], " five pears", [(" five", -3), (" pears", -4)]),
        # The template goes on after it.
        (["x", "five", "<|im_end|>", "\n"], "five", [("five", -2)]),
        (
            ["x", "five", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"],
            "five",
            [("five", -2)],
        ),
        (["x", "five", "</s>"], "five", [("five", -2)]),
        # The template trims what it is given.
        (["x", "five"], " five\n", [("five", -2)]),
        # The boundary falls inside of a token.
        (["x", "\n\nfive", " pears"], "five pears", [("five", -2), (" pears", -3)]),
        # Characters in several tokens.
        (["x", "a", "\ufffd", "\ufffd", "b"], "a🍕b", [("a", -2), ("🍕", -7), ("b", -5)]),
        (["x", "a", "", "🍕", "b"], "a🍕b", [("a", -5), ("🍕", -4), ("b", -5)]),
        # Only the last of several is the target.
        (["five", " five"], " five", [(" five", -2)]),
        # It is not there, or something that no template writes follows it.
        (["x", "six"], "five", None),
        (["x", "five", " and"], "five", None),
        ([], "five", None),
        (["x"], "", None),
    ],
)
def test_the_target_is_found_at_the_end(texts, target, expected):
    result = found(align_tail(steps(*texts), target))
    assert result == expected


def test_a_known_suffix_is_required():
    texts = steps("x", "five", "<|end|>")
    assert align_tail(texts, "five").suffix == "<|end|>"
    assert align_tail(texts, "five", suffix="<|end|>") is not None
    assert align_tail(texts, "five", suffix="") is None
    ambiguous = steps("\n", "five", "<|end|>", "\n")
    assert align_tail(ambiguous, "\n", suffix="<|end|>\n") is None


@given(
    prompt=st.text(min_size=1, max_size=20),
    target=st.text(min_size=1, max_size=20),
    cuts=st.sets(st.integers(1, 39)),
)
def test_an_echo_in_any_tokens_gives_back_the_target(prompt, target, cuts):
    text = prompt + target + "!"
    bounds = [0, *sorted(c for c in cuts if c < len(text)), len(text)]
    tokens = [text[a:b] for a, b in itertools.pairwise(bounds)]
    result = align_echo(steps(*tokens), (), prompt, target, text)
    assert "".join(s.text for s in result.steps) == target
    whole = [s.logprob for s in result.steps]
    assert whole == sorted(whole, reverse=True)


@given(
    prompt=st.text(min_size=1, max_size=10),
    target=st.text(alphabet="ab 🍕é", min_size=1, max_size=10).filter(
        lambda t: t == t.strip() != ""
    ),
    cuts=st.sets(st.integers(1, 60)),
)
def test_tokens_that_cut_characters_keep_the_sum(prompt, target, cuts):
    data = target.encode()
    bounds = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(bounds)]
    tokens = [piece.decode(errors="replace") for piece in pieces]
    made = [Step(text=prompt + "|", logprob=-1.0)]
    made += [Step(text=t, logprob=-1.0) for t in tokens]
    result = align_tail(made, target)
    assert result is not None
    assert "".join(s.text for s in result.steps) == target
    assert sum(s.logprob for s in result.steps) == -len(tokens)


@pytest.mark.parametrize("offsets", [(), (0, 1), (0, 2, 1)])
def test_offsets_that_make_no_sense_find_nothing(offsets):
    assert align_echo(steps("?", "?", "?"), offsets, "A:", " five", "A: five") is None


# --- chat servers ------------------------------------------------------------------------------


def vllm(*tokens, honours=True, first=None):
    """A server of the vLLM kind: one token per word of the last message, then the template."""

    def reply(request):
        body = request.body
        if "prompt_logprobs" not in body:
            return answer(None)
        words = body["messages"][-1]["content"].split(" ")
        texts = [words[0], *(f" {w}" for w in words[1:])]
        rows = [None, *(entry(t, -0.5 * (i + 1)) for i, t in enumerate(("<|im_start|>", *texts)))]
        if not honours:
            rows += [entry("<|im_end|>", -0.01), entry("\n", -0.02)]
        return answer(rows)

    return reply


def entry(text, value):
    own = {"logprob": value, "rank": 2, "decoded_token": text}
    other = {"logprob": -0.25, "rank": 1, "decoded_token": "?"}
    return {"900": own, "17": other}


def answer(rows):
    return {
        "choices": [{"message": {"role": "assistant", "content": "!"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 1},
        "prompt_logprobs": rows,
    }


@pytest.mark.parametrize("honours", [True, False])
async def test_a_chat_server_scores_the_last_message(stub, backend, ask, honours):
    stub.reply(vllm(honours=honours))
    async with backend() as opened:
        completion = (await opened.answer(ask("How many?", target="five pears"))).completion
    (body,) = stub.bodies
    assert body["messages"] == [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "five pears"},
    ]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (body["prompt_logprobs"], body["max_tokens"]) == (20, 1)
    assert completion.tokens == ("five", " pears")
    np.testing.assert_allclose(completion.logprobs, [-1.0, -1.5])
    assert completion.alternative_tokens == (("?", "five"), ("?", " pears"))
    assert completion.usage.prompt_tokens == 12


def through(opened):
    async def send(request) -> Completion:
        return (await opened.answer(request)).completion

    return send


SCORE = frozenset({Capability.SCORE})


async def test_the_probe_confirms_a_server_that_scores(stub, backend):
    stub.reply(vllm())
    async with backend() as opened:
        assert opened.uncertain == SCORE
        assert Capability.SCORE not in opened.capabilities
        assert await opened.probe(through(opened), SCORE) == SCORE
        assert Capability.SCORE in opened.capabilities
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(None),
        answer([]),
        answer([None, entry("something", -1.0), entry(" else", -1.0)]),
        (400, {"error": {"message": "Unknown field: prompt_logprobs"}}, {}),
        (422, {"detail": [{"loc": ["body", "continue_final_message"], "msg": "extra"}]}, {}),
    ],
)
async def test_the_probe_finds_out_a_server_that_does_not(stub, backend, ask, reply):
    stub.reply(reply)
    async with backend() as opened:
        assert await opened.probe(through(opened), SCORE) == frozenset()
        asked = len(stub.requests)
        with pytest.raises(CapabilityError) as caught:
            await opened.answer(ask(target="5"))
        assert isinstance(caught.value, BadRequestError)  # permanent: nobody tries again
        assert opened.uncertain == frozenset()
        assert Capability.LOGPROBS in opened.capabilities
    assert len(stub.requests) == asked == 1


@pytest.mark.parametrize("values", [(0.0, 0.0), (math.nan, -1.0)])
async def test_the_probe_does_not_believe_made_up_numbers(backend, values):
    async with backend() as opened:

        async def send(request) -> Completion:
            texts = (request.target[:3], request.target[3:])
            return Completion(text=request.target, tokens=texts, logprobs=np.array(values))

        assert await opened.probe(send, SCORE) == frozenset()


async def test_an_answer_from_the_cache_confirms_as_well(stub, backend, ask):
    async with backend() as opened:

        async def send(request) -> Completion:
            texts = (request.target[:3], request.target[3:])
            return Completion(text=request.target, tokens=texts, logprobs=np.array([-1.0, -2.0]))

        assert await opened.probe(send, SCORE) == SCORE
        assert Capability.SCORE in opened.capabilities
        stub.reply(vllm())
        assert (await opened.answer(ask(target="five"))).completion.tokens == ("five",)


async def test_what_is_not_wanted_is_not_probed(stub, backend):
    async with backend() as opened:
        assert await opened.probe(through(opened), frozenset()) == frozenset()
    assert stub.requests == []


@pytest.mark.parametrize("status", [401, 404])
async def test_a_wrong_key_or_model_ends_the_probe(stub, backend, status):
    stub.reply((status, {"error": {"message": "no"}}, {}))
    async with backend() as opened:
        with pytest.raises(AuthError if status == 401 else UnknownModelError):
            await opened.probe(through(opened), SCORE)


async def test_a_server_that_falls_over_scoring_is_not_given_up(stub, backend):
    stub.reply((500, {"error": {"message": "not implemented"}}, {}))
    async with backend() as opened:

        async def send(request) -> Completion:
            try:
                return (await opened.answer(request)).completion
            except BackendUnavailableError as error:
                raise RetriesExhaustedError("no", attempts=2, waited_s=0.0) from error

        assert await opened.probe(send, SCORE) == frozenset()
