# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza._engine.keys import KeyMaker
from pizza.completion import Generation, Request
from pizza.errors import ConfigError
from pizza.prompt import Message, Prompt

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4)
messages = st.lists(
    st.builds(Message, text=texts, role=st.sampled_from(["user", "system"])),
    min_size=1,
    max_size=3,
)
generations = st.builds(
    Generation,
    max_tokens=st.integers(1, 3),
    temperature=st.sampled_from([0.0, 0.5]),
    seed=st.sampled_from([None, 0, 1]),
    top_logprobs=st.sampled_from([0, 20]),
    stop=st.lists(texts, max_size=2).map(tuple),
    extra=st.dictionaries(st.text(max_size=2), plain, max_size=2),
)


@st.composite
def requests(draw):
    kind = draw(st.sampled_from(["complete", "score"]))
    return Request(
        prompt=Prompt(messages=tuple(draw(messages)), kind=draw(st.sampled_from(["text", "chat"]))),
        kind=kind,
        target=draw(texts) if kind == "score" else None,
        logprobs=draw(st.booleans()),
        generation=draw(generations),
        sample=draw(st.integers(0, 1)),
    )


def asked(request):
    """What a backend is asked, spelled out, as an oracle of equality."""
    g = request.generation
    return (
        [(m.role, m.text) for m in request.prompt.messages],
        request.prompt.kind == "chat",
        request.kind,
        request.target,
        request.logprobs,
        request.sample,
        g.top_logprobs if request.logprobs else 0,
        repr(sorted_deep(dict(g.extra))),
        None
        if request.kind == "score"
        else (g.max_tokens, float(g.temperature), repr(g.seed), g.stop),
    )


def sorted_deep(value):
    if isinstance(value, dict):
        return [(k, sorted_deep(value[k])) for k in sorted(value)]
    return [sorted_deep(v) for v in value] if isinstance(value, list) else value


@given(requests(), requests())
def test_two_requests_have_one_key_exactly_when_they_ask_the_same(first, second):
    maker = KeyMaker("backend")
    same = asked(first) == asked(second)
    assert (maker.key(first) == maker.key(second)) == same


@given(requests())
def test_a_key_does_not_depend_on_what_was_asked_before(request):
    used = KeyMaker("backend")
    used.key(Request(prompt=Prompt(messages=(Message(text="x"),))))
    used.key(replace(request, logprobs=not request.logprobs))
    assert used.key(request) == KeyMaker("backend").key(request)


@given(requests())
def test_the_backend_is_part_of_it(request):
    assert KeyMaker("a").key(request) != KeyMaker("b").key(request)


@given(st.dictionaries(st.text(max_size=3), plain, min_size=2, max_size=5))
def test_the_order_of_extra_fields_does_not_matter(extra):
    def key(fields):
        generation = Generation(extra=dict(fields))
        prompt = Prompt(messages=(Message(text="x"),))
        return KeyMaker("b").key(Request(prompt=prompt, generation=generation))

    assert key(extra.items()) == key(reversed(extra.items()))


def test_what_is_only_for_perturbing_is_not_part_of_it():
    maker = KeyMaker("b")
    prompt = Prompt.from_text("Q: how are you?")
    assert prompt.fixed
    assert maker.key(Request(prompt=prompt)) == maker.key(Request(prompt=replace(prompt, fixed=())))


def test_a_template_is_the_text_it_renders_to():
    maker = KeyMaker("b")
    template = Prompt.template("Hello {name}", name="Ana")
    assert maker.key(Request(prompt=template)) == maker.key(
        Request(prompt=Prompt.from_text("Hello Ana"))
    )


def test_a_key_is_the_same_in_every_process():
    request = Request(prompt=Prompt(messages=(Message(text="hello"),)))
    assert KeyMaker("b").key(request) == (
        "1814c390ca2497348cb8f99c82101ce6258e6b3c884a191f83a1c7065cd09dcf"
    )


def test_extra_fields_that_cannot_be_sent_are_refused():
    generation = Generation(extra={"x": object()})
    with pytest.raises(ConfigError, match="cannot be sent as JSON"):
        KeyMaker("b").key(
            Request(prompt=Prompt(messages=(Message(text="x"),)), generation=generation)
        )
