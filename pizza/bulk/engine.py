# SPDX-License-Identifier: Apache-2.0
"""`Engine`: what carries out the rows of a run. `engine_of` finds one by its name."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pizza.errors import ConfigError
from pizza.specs import Choice, parse_choice

if TYPE_CHECKING:
    from pizza.bulk.settings import Settings
    from pizza.bulk.work import Work

_ENGINES = {"local": "pizza.bulk.local_engine:LocalEngine", "ray": "pizza_ray:RayEngine"}
_INSTALL = {"pizza_ray": "pip install 'pizza-attribution[ray]'"}


class Engine(ABC):
    """Explains rows, in this process or elsewhere, and tells the run what became of each.

    The run keeps what must be one whatever the engine: the directory and its lock, the input, the
    manifest, failures, events, the circuit. The engine opens what explains, and writes the parts.
    It makes one run at a time.
    """

    def check(self, settings: Settings) -> None:  # noqa: B027 - most engines make any run
        """Refuse a run that this engine cannot make, before anything is opened.

        Raises:
            ConfigError: It cannot.
        """

    @abstractmethod
    async def carry_out(self, work: Work) -> None:
        """Explain the rows of ``work`` until there are none left or it is hopeless.

        When this returns or raises, nothing is under way any more, and every result that was told
        as `Work.succeeded` and not as `Work.lost` stands in a part, or `Work.no_room` was told.

        Args:
            work: What is to be done, and who is told.

        Raises:
            PizzaError: The run cannot go on.

        Cost: what the rows without a result need.
        """


def engine_of(given: Engine | Choice | str | None) -> Engine:
    """The engine that is meant: an object, a name with options (``"ray:workers=3"``), or the local.

    Raises:
        ConfigError: There is none of that name, or its package is not installed.
    """
    if isinstance(given, Engine):
        return given
    choice = parse_choice(given) if isinstance(given, str) else given or Choice("local")
    if not isinstance(choice, Choice):
        raise ConfigError(f"engine is a name or a pizza.bulk.Engine, not {type(given).__name__}.")
    if choice.name not in _ENGINES:
        raise ConfigError(
            f"no engine is called {choice.name!r}: known are {', '.join(_ENGINES)}. Another one "
            "is given as an object (engine=...)."
        )
    module, _, name = _ENGINES[choice.name].partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in _INSTALL:
            raise
        raise ConfigError(
            f"the engine {choice.name!r} is not installed: {_INSTALL[error.name]}."
        ) from error
    try:
        made: Engine = kind(**choice.options)
    except TypeError as error:
        raise ConfigError(f"the engine {choice.name!r} does not take this: {error}.") from error
    return made
