# SPDX-License-Identifier: Apache-2.0
"""What plugins register: frozen descriptions whose target is imported on first use.

A spec never imports the part that it describes. ``target`` is ``"package.module:attribute"``; the
attribute is a class or function that is called with the user's options as keyword arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pizza.capability import Capability
from pizza.errors import ConfigError

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Common to all kinds of parts.

    Attributes:
        name: The registry name: lower-case words joined by hyphens.
        target: ``"package.module:attribute"``, imported on first use.
        summary: One line for ``pizza plugins`` and error messages.
        needs: Import names of packages that the target imports beyond its own distribution's
            hard dependencies, e.g. ``("torch", "transformers")``.
        install: The command that installs what is needed, for error messages.
        requires: Capabilities that the backend must have. A made part with an attribute
            ``requires`` of its own says more precisely what it needs with its options.
    """

    name: str
    target: str
    summary: str = ""
    needs: tuple[str, ...] = ()
    install: str = ""
    requires: frozenset[Capability] = frozenset()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"the name {self.name!r} is not lower-case words joined by hyphens.")
        if not _TARGET.fullmatch(self.target):
            raise ConfigError(f"the target {self.target!r} is not 'package.module:attribute'.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec(Spec):
    """A model backend. Its target is called with `BackendSettings` and returns a `Backend`.

    Attributes:
        offers: Capabilities that backends of this kind may have, depending on the model.
        default_model: Used when the user names no model; ``""`` = a model must be named.
        key_variable: Environment variable that holds the key, or ``""``. Only its presence is
            ever shown.
    """

    offers: frozenset[Capability] = frozenset()
    default_model: str = ""
    key_variable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec(Spec):
    """An attribution metric. Its target returns a `Metric`.

    Attributes:
        evidence: What the metric compares. ``"tokens"``: log-probabilities of the reference's
            tokens, teacher-forced where the backend can score. ``"text"``: what the model writes.
    """

    evidence: str = "text"

    def __post_init__(self) -> None:
        # Not super(): a slots dataclass is a new class, which the zero-argument form misses.
        Spec.__post_init__(self)
        if self.evidence not in ("text", "tokens"):
            raise ConfigError(f"evidence is 'text' or 'tokens', not {self.evidence!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec(Spec):
    """An attribution method. Its target returns a `Method`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbationSpec(Spec):
    """A perturbation strategy. Its target returns a `PerturbationStrategy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterSpec(Spec):
    """A segmenter. Its target returns a `Segmenter`."""


class Choice:
    """A part by name, with options: ``Choice("fixed", text="...")``.

    Wherever a part is named, a plain string, a `Choice` or a ready object may be given. On the
    command line the same is written ``fixed:text=...``.
    """

    __slots__ = ("name", "options")

    def __init__(self, name: str, /, **options: Any) -> None:
        self.name = name
        self.options: Mapping[str, Any] = dict(options)

    def __repr__(self) -> str:
        inner = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"Choice({self.name!r}{inner})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Choice):
            return NotImplemented
        return self.name == other.name and self.options == other.options

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.options))))


_NEXT_OPTION = re.compile(r",(?=[A-Za-z_][\w-]*=)")


def parse_choice(text: str) -> Choice:
    """Read ``name`` or ``name:option=value,option=value``, as the command line writes it.

    Values are read as JSON where they are JSON (numbers, true, null, lists, quoted texts) and as
    plain texts otherwise. Hyphens in option names stand for underscores.

    Example:
        >>> parse_choice("sliding-window:size=4,stride=2")
        Choice('sliding-window', size=4, stride=2)
        >>> parse_choice("fixed:text=...")
        Choice('fixed', text='...')
    """
    name, colon, rest = text.partition(":")
    options: dict[str, Any] = {}
    for piece in _NEXT_OPTION.split(rest) if colon else ():
        option, equals, value = piece.partition("=")
        if not equals or not option:
            raise ConfigError(
                f"cannot read {text!r}: after the name and a colon comes option=value, not "
                f"{piece!r}. Example: fixed:text=..."
            )
        try:
            options[option.replace("-", "_")] = json.loads(value)
        except ValueError:
            options[option.replace("-", "_")] = value
    return Choice(name.strip(), **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """What a backend is opened with.

    Attributes:
        model: The model's name, as its backend understands it.
        base_url: Where the server is, or ``None`` for the backend's default.
        api_key: The key, a function that returns it, or ``None`` for the environment's. Never
            shown: not part of the repr.
        max_concurrency: Requests that will be in flight at the same time; sizes the pool.
        timeout_s: Seconds after which an attempt counts as timed out.
        options: Further options of this backend.
    """

    model: str
    base_url: str | None = None
    api_key: Any = field(default=None, repr=False)
    max_concurrency: int = 50
    timeout_s: float = 120.0
    options: Mapping[str, Any] = field(default_factory=dict)
