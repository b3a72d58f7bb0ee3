# SPDX-License-Identifier: Apache-2.0
"""AtMan is what plain attention finds when its scores are changed by hand."""

import importlib
import math

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pizza_local.methods.atman import AtMan  # noqa: E402
from support import attended, tiny  # noqa: E402

import pizza  # noqa: E402
from pizza.errors import ConfigError  # noqa: E402


def changed(scores, hidden, columns, factor, mode):
    """Scores ``(..., q, k)`` with columns suppressed, row by row."""
    scores = scores.masked_fill(hidden, -math.inf)
    for row in scores.reshape(-1, scores.shape[-1]):
        if mode == "additive":
            row[columns] += math.log(factor)
        else:
            row -= row[row > -math.inf].min()
            seen = [column for column in columns if row[column] > -math.inf]
            row[seen] *= factor
    return scores


def gpt2_by_hand(model, ids, columns, factor, mode):
    """Logits ``(n, vocabulary)`` of a GPT-2 written out, with the scores of columns suppressed."""
    state = dict(model.named_parameters())
    config = model.config
    n, heads = len(ids), config.n_head
    x = state["transformer.wte.weight"][ids] + state["transformer.wpe.weight"][:n]
    hidden = torch.ones(n, n, dtype=torch.bool).triu(1)

    def norm(x, name):
        return torch.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x, name):
        return x @ state[f"{name}.weight"] + state[f"{name}.bias"]

    for layer in range(config.n_layer):
        at = f"transformer.h.{layer}"
        q, k, v = linear(norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn").chunk(3, dim=-1)
        q, k, v = (one.view(n, heads, -1).transpose(0, 1) for one in (q, k, v))
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        scores = changed(scores.clone(), hidden, columns, factor, mode)
        attended_to = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1)
        x = x + linear(attended_to, f"{at}.attn.c_proj")
        inner = linear(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc")
        x = x + linear(torch.nn.functional.gelu(inner, approximate="tanh"), f"{at}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ state["transformer.wte.weight"].T


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize("factor", [0.1, 0.6])
async def test_scores_are_those_of_a_gpt2_written_out(mode, factor):
    case = attended.case("gpt2")
    model = case.make()
    found = await case.ask(AtMan(factor=factor, mode=mode), model)
    ids = case.inputs()["input_ids"][0].tolist()

    def logs(columns):
        with torch.no_grad():
            rows = gpt2_by_hand(model, ids, columns, factor, mode)[case.readers()]
        return rows.log_softmax(-1)[torch.arange(len(case.output)), torch.tensor(case.output)]

    torch.testing.assert_close(logs([]), case.logs(model), rtol=1e-9, atol=1e-9)
    expected = torch.stack([logs([]) - logs([place]) for place in case.places], dim=1)
    np.testing.assert_allclose(found.scores[1:], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.scores[0], expected.sum(0), rtol=1e-9, atol=1e-9)
    assert found.metric == "logprob"


FILES = {"gpt2": "gpt2", "llama": "llama", "t5": "t5", "bart": "bart", "bert-classifier": "bert", "bert-mlm": "bert"}  # fmt: skip # noqa: E501


def suppressing(monkeypatch, kind, columns, factor, mode):
    """Make transformers' own plain attention suppress columns of the prompt."""
    name = FILES[kind]
    file = importlib.import_module(f"transformers.models.{name}.modeling_{name}")

    def attend(module, query, key, value, mask, scaling=None, position_bias=None, **_):
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)  # fmt: skip # noqa: E501
        if position_bias is not None:
            scores = scores + position_bias
        hidden = torch.zeros_like(scores, dtype=torch.bool)
        if mask is not None:
            hidden |= mask < -1e30
        own = kind in ("t5", "bart") and module.is_causal
        scores = changed(scores.clone(), hidden, [] if own else columns, factor, mode)
        weights = scores.softmax(-1)
        return (weights @ value).transpose(1, 2), weights

    monkeypatch.setattr(file, "eager_attention_forward", attend)


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize("kind", [*attended.KINDS, "bart"])
async def test_scores_are_those_of_plain_attention_with_changed_scores(kind, mode, monkeypatch):
    case = attended.case(kind)
    found = await case.ask(f"atman:factor=0.2,mode={mode}")
    eager = case.eager()
    suppressing(monkeypatch, kind, [], 0.2, mode)
    before = case.logs(eager)
    rises = []
    for place in case.places:
        suppressing(monkeypatch, kind, [place], 0.2, mode)
        rises.append(before - case.logs(eager))
    expected = torch.stack(rises, dim=1)
    # Llama's softmax and norms, and T5's norms, are computed in single precision.
    tolerance = 1e-5 if kind in ("llama", "t5") else 1e-9
    np.testing.assert_allclose(found.scores[1:], expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.scores[0], expected.sum(0), rtol=tolerance, atol=tolerance)
    assert np.abs(found.scores[0]).max() > 1e-3


async def test_a_unit_of_several_tokens_is_suppressed_as_one(monkeypatch):
    case = attended.case("gpt2")
    # The second unit ends inside of a token, which counts as the unit's.
    (start, _), (_, end) = case.units[1], case.units[2]
    cut = next(i for i, (a, b) in enumerate(case.units) if i > 2 and b - a > 1)
    units = [(start, end), (case.units[cut][0], case.units[cut][0] + 1)]
    found = await case.ask("atman", units=units)
    eager = case.eager()
    suppressing(monkeypatch, "gpt2", [], 0.1, "additive")
    before = case.logs(eager)
    for column, places in enumerate([case.places[1:3], [case.places[cut]]]):
        suppressing(monkeypatch, "gpt2", places, 0.1, "additive")
        expected = before - case.logs(eager)
        np.testing.assert_allclose(found.scores[1:, column], expected, rtol=1e-9, atol=1e-9)


async def test_similar_tokens_are_suppressed_too(monkeypatch):
    case = attended.case("gpt2")
    model = case.make()
    embedded = model.transformer.wte.weight.data
    first, second = case.places[1], case.places[5]
    # Another token of the prompt that points in nearly the same direction.
    embedded[case.ids[second]] = 2 * embedded[case.ids[first]] + 0.01
    alone = await case.ask(AtMan(), model)
    found = await case.ask(AtMan(similar=0.9), model)
    model.config._attn_implementation = "eager"
    suppressing(monkeypatch, "gpt2", [], 0.1, "additive")
    before = case.logs(model)
    suppressing(monkeypatch, "gpt2", [first, second], 0.1, "additive")
    expected = before - case.logs(model)
    np.testing.assert_allclose(found.scores[1:, 1], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.scores[1:, 5], expected, rtol=1e-9, atol=1e-9)
    others = [i for i in range(len(case.units)) if i not in (1, 5)]
    np.testing.assert_allclose(found.scores[:, others], alone.scores[:, others], atol=1e-9)
    assert np.abs(found.scores[1:, 1] - alone.scores[1:, 1]).max() > 1e-3


async def test_a_span_limits_the_whole_and_the_rows():
    case = attended.case("gpt2")
    whole = await case.ask("atman")
    target = pizza.Target.tokens(case.output, span=(4, len(case.target)))
    found = await case.ask("atman", target=target)
    kept = np.isfinite(found.scores[1:]).all(axis=1)
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_allclose(found.scores[1:][kept], whole.scores[1:][kept], atol=1e-9)
    np.testing.assert_allclose(found.scores[0], whole.scores[1:][kept].sum(0), atol=1e-9)


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert-classifier"])
async def test_a_contrast_is_the_difference_of_both_outputs(kind):
    case = attended.case(kind)
    versus = "positive" if kind == "bert-classifier" else " green"
    own = await case.ask("atman")
    other = await case.ask("atman", target=versus)
    found = await case.ask("atman", target=pizza.Target.contrast(case.target, versus))
    np.testing.assert_allclose(found.scores[0], own.scores[0] - other.scores[0], atol=1e-9)
    np.testing.assert_allclose(found.scores[1:], own.scores[1:], atol=1e-9)


async def test_a_unit_is_a_forward_and_the_plain_prompt_another():
    case = attended.case("llama")
    whole = await case.ask("atman")
    found = await case.ask("atman", chunk=3)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-5, atol=1e-6)
    n_units, n_read = len(case.units), len(case.ids) + len(case.output) - 1
    for each, passes in ((whole, 1), (found, -(-(1 + n_units) // 3))):
        details = each.provenance["method"]["details"]
        assert details["passes"] == {
            "forward_passes": passes,
            "backward_passes": 0,
            "forward_tokens": n_read * (1 + n_units),
            "backward_tokens": 0,
        }
        assert (details["factor"], details["mode"]) == (0.1, "additive")


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
async def test_a_factor_of_one_changes_nothing(mode):
    found = await attended.case("gpt2").ask(AtMan(factor=1, mode=mode))
    np.testing.assert_allclose(found.scores, 0, atol=1e-9)


async def test_a_factor_of_nearly_nothing_is_like_taking_the_token_away():
    case = attended.case("bert-classifier")
    model = case.make()
    found = await case.ask(AtMan(factor=1e-300), model)
    before = case.logs(model)
    for column, place in enumerate(case.places):
        mask = torch.ones(1, len(case.ids), dtype=torch.long)
        mask[0, place] = 0
        expected = before - case.logs(model, attention_mask=mask)
        np.testing.assert_allclose(found.scores[1:, column], expected, rtol=1e-9, atol=1e-9)


async def test_level_sequence_has_the_whole_only():
    case = attended.case("gpt2")
    found = await case.ask(AtMan(level="sequence"))
    np.testing.assert_allclose(found.scores[0], (await case.ask("atman")).scores[0], atol=1e-9)
    assert np.isnan(found.scores[1:]).all()


@pytest.mark.parametrize("family", ["Mistral", "Gemma2"])
@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
async def test_tokens_outside_of_every_window_do_not_matter(family, mode):
    case = attended.case("gpt2")
    options = {"sliding_window": 3}
    if family == "Gemma2":
        options["layer_types"] = ["sliding_attention"] * 3
    model = tiny.decoder(family, **options)
    found = await case.ask(AtMan(mode=mode), model.double())
    # Three layers of 3 tokens see 7: the first output token, which is read from the last token of
    # the prompt, depends on no token before them.
    assert len(case.places) > 7
    np.testing.assert_array_equal(found.scores[1, :-7], 0)
    assert (found.scores[1, -7:] != 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 0},
        {"factor": -0.1},
        {"factor": math.nan},
        {"factor": "0.1"},
        {"factor": True},
        {"factor": -1, "mode": "multiplicative"},
        {"mode": "both"},
        {"similar": 1.1},
        {"similar": "yes"},
        {"function": "prob"},
        {"function": "attention"},
        {"level": "word"},
        {"layer": 2},
    ],
)
def test_options_that_mean_nothing(options):
    with pytest.raises(ConfigError):
        AtMan(**options)
