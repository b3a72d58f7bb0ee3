# SPDX-License-Identifier: Apache-2.0
"""How faithful an attribution is to the model: measures that need only coalitions and values."""

from pizza.evaluation.result import Evaluation, Faithfulness

__all__ = ["Evaluation", "Faithfulness"]
