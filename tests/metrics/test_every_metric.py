# SPDX-License-Identifier: Apache-2.0
"""What holds for every metric and all completions."""

from __future__ import annotations

import importlib
import math
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pizza.abc import TokenTable
from pizza.completion import Completion, pack_alternatives
from pizza.errors import ConfigError, IncomparableError
from pizza.metrics import SPECS
from pizza.metrics.cosine import Cosine
from pizza.metrics.displacement import TokenDisplacement
from pizza.metrics.divergence import JSDivergence, KLDivergence
from pizza.metrics.edit import EditDistance
from pizza.metrics.exact import ExactMatch
from pizza.metrics.jaccard import Jaccard
from pizza.metrics.probability import LogitDiff, LogprobDiff, ProbDiff
from pizza.metrics.rouge import RougeL

ANYWHERE = {"alignment": "location-invariant"}
METRICS = {
    "logprob-diff": lambda table: LogprobDiff(),
    "logprob-diff mean": lambda table: LogprobDiff(whole="mean"),
    "logprob-diff anywhere": lambda table: LogprobDiff(**ANYWHERE),
    "prob-diff": lambda table: ProbDiff(),
    "prob-diff mean": lambda table: ProbDiff(whole="mean"),
    "prob-diff anywhere": lambda table: ProbDiff(**ANYWHERE),
    "logit-diff": lambda table: LogitDiff(),
    "logit-diff mean": lambda table: LogitDiff(whole="mean"),
    "logit-diff anywhere": lambda table: LogitDiff(**ANYWHERE),
    "token-displacement": lambda table: TokenDisplacement(),
    "token-displacement anywhere": lambda table: TokenDisplacement(**ANYWHERE),
    "kl-divergence": lambda table: KLDivergence(),
    "js-divergence": lambda table: JSDivergence(),
    "cosine": lambda table: Cosine(table=table),
    "exact-match": lambda table: ExactMatch(),
    "edit-distance": lambda table: EditDistance(),
    "rouge-l": lambda table: RougeL(),
    "jaccard": lambda table: Jaccard(),
}
RANGES = {
    "prob-diff": (-1, 1),
    "prob-diff mean": (-1, 1),
    "prob-diff anywhere": (-1, 1),
    "logprob-diff": (-math.inf, math.inf),
    "logprob-diff mean": (-100, 100),
    "logprob-diff anywhere": (-math.inf, math.inf),
    "logit-diff": (-math.inf, math.inf),
    "logit-diff mean": (-114, 114),
    "logit-diff anywhere": (-math.inf, math.inf),
    "token-displacement": (-6, 6),
    "token-displacement anywhere": (-6, 6),
    "kl-divergence": (0, math.inf),
    "js-divergence": (0, math.log(2)),
    "cosine": (0, 2),
}
every = pytest.mark.parametrize("name", METRICS)
many = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

tokens = st.sampled_from(("a", "b", "c", " d", " e", "é", "\ufffd", "🍐"))
probabilities = st.one_of(st.floats(0, 1), st.just(1.0), st.just(0.0), st.just(1e-300))


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    rows, own = [], []
    written = draw(st.lists(tokens, max_size=6))
    for token in written:
        listed = draw(st.lists(tokens, max_size=5))
        left, row = 1.0, []
        for alternative in listed:
            p = left * draw(probabilities)
            left -= p
            row.append((alternative, math.log(p) if p > 0 else -math.inf))
        row.sort(key=lambda pair: -pair[1])
        rows.append(row)
        known = [value for text, value in row if text == token]
        own.append(known[0] if known else math.log(max(left * draw(probabilities), 1e-320)))
    texts, values = pack_alternatives(rows)
    return Completion(
        text="".join(written),
        tokens=tuple(written),
        logprobs=np.array(own),
        alternative_tokens=texts,
        alternative_logprobs=values,
        finish_reason=draw(st.sampled_from(["stop", "length", None])),
    )


@every
@many
@given(reference=completions(), perturbed=st.lists(completions(), max_size=5))
def test_shape_range_and_rows_on_their_own(name, table, reference, perturbed):
    metric = METRICS[name](table)
    effects = metric.compare(reference, perturbed)
    assert effects.shape == (len(perturbed), 1 + len(reference.tokens))
    assert effects.dtype == np.float64
    assert not np.isinf(effects).any()
    low, high = RANGES.get(name, (0, 1))
    assert (np.isnan(effects) | (effects >= low - 1e-12)).all()
    assert (np.isnan(effects) | (effects <= high + 1e-12)).all()
    for row, completion in zip(effects, perturbed, strict=True):
        np.testing.assert_array_equal(metric.compare(reference, [completion])[0], row)


@every
@many
@given(reference=completions())
def test_the_same_completion_is_exactly_0(name, table, reference):
    copy = Completion.from_dict(reference.to_dict())
    effects = METRICS[name](table).compare(reference, [reference, copy])
    assert (effects[:, 0] == 0.0).all()
    tokens = effects[:, 1:]
    assert (np.isnan(tokens) | (tokens == 0.0)).all()
    if name in RANGES or name == "edit-distance":
        assert (tokens == 0.0).all()


@every
def test_polarity(name, table, make):
    """The less like the reference, the more positive."""
    reference = make(("a", {"a": 0.9, "b": 0.05}), (" d", {" d": 0.8, "c": 0.1}))
    less = make(("b", {"b": 0.6, "a": 0.3}), ("c", {"c": 0.8, " d": 0.1}))
    (effect,) = METRICS[name](table).compare(reference, [less])[:, 0]
    assert effect > 0.05


@pytest.mark.parametrize("name", ["logprob-diff", "prob-diff", "logit-diff", "token-displacement"])
def test_what_works_against_the_output_is_negative(name, table, make):
    reference = make(("a", {"b": 0.5, "a": 0.3}))
    more = make(("a", {"a": 0.9, "b": 0.1}))
    assert METRICS[name](table).compare(reference, [more])[0, 0] < 0


@every
def test_no_perturbed_completions(name, table, make):
    assert METRICS[name](table).compare(make(("a", {"a": 1.0})), []).shape == (0, 2)


@every
def test_an_output_of_nothing(name, table, make):
    nothing, something = make(), make(("a", {"a": 0.9, "b": 0.1}))
    metric = METRICS[name](table)
    assert metric.compare(nothing, [nothing]).tolist() == [[0.0]]
    assert metric.compare(nothing, [something]).shape == (1, 1)
    assert metric.compare(something, [nothing])[0, 0] > 0


@pytest.mark.parametrize("name", [n for n in METRICS if n.startswith(("prob", "log"))])
def test_log_probabilities_are_needed(name, table, make):
    with_them, without = make(("a", {"a": 0.9})), Completion(text="a", tokens=("a",))
    for reference, perturbed in [(with_them, without), (without, with_them)]:
        with pytest.raises(IncomparableError, match="log-probabilities"):
            METRICS[name](table).compare(reference, [perturbed])


@pytest.mark.parametrize("name", ["token-displacement", "kl-divergence", "js-divergence"])
def test_alternatives_are_needed(name, table, make):
    with_them, without = make(("a", {"a": 0.9})), make(("a", {"a": 0.9}), bare=True)
    for reference, perturbed in [(with_them, without), (without, with_them)]:
        with pytest.raises(IncomparableError, match="alternatives"):
            METRICS[name](table).compare(reference, [perturbed])


@pytest.mark.parametrize("metric", [LogprobDiff, ProbDiff, LogitDiff, TokenDisplacement])
def test_unknown_alignment(metric):
    with pytest.raises(ConfigError, match="location-invariant"):
        metric(alignment="diagonal")


@pytest.mark.parametrize("metric", [LogprobDiff, ProbDiff, LogitDiff])
def test_unknown_whole(metric):
    with pytest.raises(ConfigError, match="'joint' or 'mean'"):
        metric(whole="half")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_specs_name_something_that_exists(spec):
    module, _, attribute = spec.target.partition(":")
    made = getattr(importlib.import_module(module), attribute)()
    assert type(made) in {type(make(None)) for make in METRICS.values()}
    assert spec.summary


@pytest.fixture(scope="module")
def long_outputs():
    """A vocabulary, an output of 200 tokens with 20 alternatives each, and 100 to compare."""
    rng = np.random.default_rng(0)
    vocabulary = [f" w{number}" for number in range(3000)]

    def output(first=None):
        rows = []
        for position in range(200):
            listed = [vocabulary[number] for number in rng.integers(0, 3000, 20)]
            if first is not None:
                listed[0] = first.tokens[position]
            values = np.log(np.sort(rng.dirichlet(np.ones(24))[:20])[::-1])
            rows.append(list(zip(listed, values.tolist(), strict=True)))
        texts, values = pack_alternatives(rows)
        return Completion(
            text="".join(row[0][0] for row in rows),
            tokens=tuple(row[0][0] for row in rows),
            logprobs=values[:, 0],
            alternative_tokens=texts,
            alternative_logprobs=values,
        )

    table = TokenTable(tokens=tuple(vocabulary), embeddings=rng.normal(size=(3000, 64)))
    reference = output()
    others = [output(reference) for _ in range(50)] + [output() for _ in range(50)]
    return table, reference, others


@every
def test_a_hundred_long_outputs_take_moments(name, long_outputs):
    table, reference, perturbed = long_outputs
    metric = METRICS[name](table)
    start = time.process_time()
    metric.compare(reference, perturbed)
    # Tens of milliseconds on an idle core; the bound is for a busy one.
    assert time.process_time() - start < 2
