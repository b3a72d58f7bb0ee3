# SPDX-License-Identifier: Apache-2.0
"""Methods that look inside a model: what the core checks, asks for and keeps."""

import json

import numpy as np
import pytest
from support.games import ALL, WordGame

import pizza
from pizza.abc import Findings, InternalsMethod, Scores
from pizza.capability import Capability
from pizza.completion import Completion
from pizza.errors import (
    BudgetTooSmallError,
    CapabilityError,
    ConfigError,
    IncomparableError,
    PluginContractError,
)

WEIGHTS = {"Ana": 0.5, "has": 0.0, "3": 2.0, "red": -0.25, "apples": 1.0}
PROMPT = "Ana has 3 red apples"


class Glass(WordGame):
    """A game that can be looked into: its view is what was asked for, and its weights."""

    def __init__(self, *args, **options):
        options.setdefault("capabilities", ALL | {Capability.GRADIENTS, Capability.TOKENIZE})
        super().__init__(*args, **options)
        self.inspections = []

    async def inspect(self, inspection, method):
        self.inspections.append(inspection)
        return method.inspect((self, inspection))

    def decode(self, token_ids):
        return "".join(chr(96 + index) for index in token_ids)


class Weights(InternalsMethod):
    """Finds the weights."""

    def __init__(self, **changes):
        self.changes = changes

    def inspect(self, view):
        game, inspection = view
        output = inspection.output
        if output is None:
            ids = inspection.target.token_ids
            text = inspection.target.text or game.decode(ids)
            tokens = tuple(text)
            output = Completion(text=text, tokens=tokens, token_ids=ids)
        n = len(output.tokens)
        row = np.array([game.weights[u.text] for u in inspection.units])
        values = np.vstack([row, np.tile(row / n, (n, 1))])
        found = {
            "output": output,
            "function": "logprob",
            "scores": Scores(values=values, details={"passes": {"forward_passes": 1}}),
            "warnings": ("look twice",),
        }
        return Findings(**found | self.changes)


async def explain(game=None, *, method=None, session=None, **options):
    game = game or Glass(WEIGHTS)
    async with pizza.Session(game, discover=False, **(session or {})) as opened:
        return await opened.attribute(PROMPT, method=method or Weights(), **options)


async def test_the_models_own_completion_costs_one_call():
    game = Glass(WEIGHTS)
    result = await explain(game)
    assert result.unit_scores.tolist() == list(WEIGHTS.values())
    assert result.metric == "logprob"
    assert result.output.tokens == game.tokens
    assert result.calls == len(game.requests) == 1
    (inspection,) = game.inspections
    assert inspection.output.text == "it is so"
    assert [u.text for u in inspection.units] == PROMPT.split()
    assert result.warnings == ("look twice",)
    assert result.provenance["method"]["details"]["passes"] == {"forward_passes": 1}
    assert len(result.evaluations) == 0


@pytest.mark.parametrize(
    "target",
    ["yes", pizza.Target.tokens([1, 2]), pizza.Target.contrast("yes", "no")],
)
async def test_a_given_target_costs_no_call(target):
    game = Glass(WEIGHTS)
    result = await explain(game, target=target)
    assert game.requests == []
    assert result.calls == 0
    (inspection,) = game.inspections
    assert inspection.output is None
    assert inspection.target == result.target


async def test_the_seed_reaches_the_method():
    game = Glass(WEIGHTS)
    await explain(game, seed=17)
    assert game.inspections[0].seed == 17


async def test_a_label_needs_a_classifier():
    with pytest.raises(CapabilityError, match="class label"):
        await explain(target=pizza.Target.label("x"))
    capabilities = ALL | {Capability.GRADIENTS, Capability.CLASSIFY}
    game = Glass(WEIGHTS, capabilities=capabilities)
    result = await explain(game, target=pizza.Target.label("x"))
    assert result.target.kind == "label"
    assert result.output.tokens == ("x",)


async def test_a_result_with_token_ids_is_saved_and_read():
    result = await explain(target=pizza.Target.tokens([3, 1], span=(0, 1)))
    again = pizza.Attribution.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.target == result.target
    assert again.output.token_ids == (3, 1)
    assert again.output.tokens == ("c", "a")
    np.testing.assert_array_equal(again.scores, result.scores)
    assert again.provenance == result.provenance
    assert again.warnings == result.warnings


async def test_rows_that_were_not_asked_for_survive_saving():
    values = np.full((4, 5), np.nan)
    values[0] = 1.0
    result = await explain(method=Weights(scores=Scores(values=values)))
    again = pizza.Attribution.from_dict(json.loads(json.dumps(result.to_dict())))
    np.testing.assert_array_equal(again.scores, values)


# --- what does not fit --------------------------------------------------------------------------


async def test_a_backend_without_gradients_is_refused_before_it_is_asked():
    game = WordGame(WEIGHTS)
    with pytest.raises(CapabilityError, match="gradients"):
        await explain(game)
    assert game.requests == []


async def test_metrics_and_evidence_mean_nothing_and_are_refused():
    game = Glass(WEIGHTS)
    with pytest.raises(ConfigError, match=r"compares no outputs.*prob-diff.*function=prob"):
        await explain(game, metrics="prob-diff")
    for evidence in ("score", "complete"):
        with pytest.raises(ConfigError, match=f"evidence='{evidence}' means nothing"):
            await explain(game, evidence=evidence)
    assert game.requests == game.inspections == []


async def test_a_budget_that_is_used_up_is_enough_for_a_given_target_only():
    game = Glass(WEIGHTS)
    async with pizza.Session(game, discover=False, budget=pizza.Budget(max_calls=1)) as session:
        await session.attribute("Ana has", method=Weights())
        with pytest.raises(BudgetTooSmallError, match="give a target text") as caught:
            await session.attribute(PROMPT, method=Weights())
        assert (caught.value.needed, caught.value.allowed) == (1, 0)
        result = await session.attribute(PROMPT, method=Weights(), target="yes")
        assert result.calls == 0
    assert len(game.requests) == 1


async def test_an_answer_of_nothing_cannot_be_explained():
    with pytest.raises(IncomparableError, match="answered nothing"):
        await explain(Glass(WEIGHTS, answer=("",)))


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (4,), (5, 5)])
async def test_scores_of_a_wrong_shape_are_the_methods_fault(shape):
    with pytest.raises(PluginContractError, match=r"shape .*expected .*\(4, 5\)"):
        await explain(method=Weights(scores=Scores(values=np.zeros(shape))))


async def test_errors_of_a_wrong_shape_are_the_methods_fault():
    scores = Scores(values=np.zeros((4, 5)), standard_errors=np.zeros((2, 5)))
    with pytest.raises(PluginContractError, match="standard errors"):
        await explain(method=Weights(scores=scores))


async def test_findings_of_a_wrong_type_are_the_methods_fault():
    class Wrong(InternalsMethod):
        def inspect(self, view):
            return 3

    with pytest.raises(PluginContractError, match="returned int"):
        await explain(method=Wrong())
