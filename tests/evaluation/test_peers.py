# SPDX-License-Identifier: Apache-2.0
"""The same formula in a peer library, on the same coalitions."""

import numpy as np
import pytest
from support.games_known import random_moebius

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
metrics = pytest.importorskip("captum.metrics")


def test_infidelity_is_captums(examine):
    game, scores = random_moebius(14, 7, seed=3), np.random.default_rng(2).normal(size=14)
    found = examine("infidelity", game, scores, budget=80)
    rows = found.paid

    def removed(whole):
        assert whole.shape == rows.shape
        return torch.tensor((~rows).astype(float)), torch.tensor(rows.astype(float))

    theirs = metrics.infidelity(
        lambda units: torch.tensor(game(units.numpy() > 0.5)),
        removed,
        torch.ones((1, 14), dtype=torch.float64),
        torch.tensor(scores[None]),
        n_perturb_samples=len(rows),
    )
    assert found["infidelity"].value == pytest.approx(theirs.item(), rel=1e-9)
