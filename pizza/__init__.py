# SPDX-License-Identifier: Apache-2.0
"""pizza: which parts of this prompt made the model say that?

Importing pizza does nothing: no I/O, no plugin scan, no numpy. Names resolve on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pizza._lazy import lazy as _lazy

if TYPE_CHECKING:
    from pizza import sync as sync
    from pizza.attribution import Attribution as Attribution
    from pizza.attribution import MetricScores as MetricScores
    from pizza.attribution import Target as Target
    from pizza.capability import Capability as Capability
    from pizza.completion import Completion as Completion
    from pizza.completion import Generation as Generation
    from pizza.completion import Request as Request
    from pizza.completion import Usage as Usage
    from pizza.errors import BackendError as BackendError
    from pizza.errors import BudgetExceededError as BudgetExceededError
    from pizza.errors import CapabilityError as CapabilityError
    from pizza.errors import ConfigError as ConfigError
    from pizza.errors import IncomparableError as IncomparableError
    from pizza.errors import PizzaError as PizzaError
    from pizza.errors import PluginError as PluginError
    from pizza.errors import RetriesExhaustedError as RetriesExhaustedError
    from pizza.evaluation.result import Evaluation as Evaluation
    from pizza.limits import Budget as Budget
    from pizza.limits import Limits as Limits
    from pizza.limits import Price as Price
    from pizza.limits import RetryPolicy as RetryPolicy
    from pizza.noise import Noise as Noise
    from pizza.progress import Partial as Partial
    from pizza.progress import Progress as Progress
    from pizza.prompt import Message as Message
    from pizza.prompt import Prompt as Prompt
    from pizza.prompt import Unit as Unit
    from pizza.session import Item as Item
    from pizza.session import Outcome as Outcome
    from pizza.session import Session as Session
    from pizza.specs import Choice as Choice

__version__ = "0.1.0"

_HOMES = {
    "sync": "pizza.sync",
    **dict.fromkeys(("Attribution", "MetricScores", "Target"), "pizza.attribution"),
    "Capability": "pizza.capability",
    **dict.fromkeys(("Completion", "Generation", "Request", "Usage"), "pizza.completion"),
    **dict.fromkeys(
        (
            "BackendError",
            "BudgetExceededError",
            "CapabilityError",
            "ConfigError",
            "IncomparableError",
            "PizzaError",
            "PluginError",
            "RetriesExhaustedError",
        ),
        "pizza.errors",
    ),
    "Evaluation": "pizza.evaluation.result",
    "Noise": "pizza.noise",
    **dict.fromkeys(("Budget", "Limits", "Price", "RetryPolicy"), "pizza.limits"),
    **dict.fromkeys(("Partial", "Progress"), "pizza.progress"),
    **dict.fromkeys(("Message", "Prompt", "Unit"), "pizza.prompt"),
    **dict.fromkeys(("Item", "Outcome", "Session"), "pizza.session"),
    "Choice": "pizza.specs",
}

__getattr__, __dir__ = _lazy(__name__, _HOMES)
__all__ = [  # noqa: PLE0604 - computed, and checked against the imports above by a test
    *sorted(_HOMES)
]
