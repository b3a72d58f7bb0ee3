# SPDX-License-Identifier: Apache-2.0
"""The options that every command with a session has, and the session that they amount to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pizza.cli.consoles import note
from pizza.errors import ConfigError
from pizza.limits import Budget, Limits, RetryPolicy
from pizza.specs import parse_choice

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The options that say which model is asked, how, and where the result goes.

    The attributes are the commands' options; `as_json` is ``--json``.
    """

    model: str
    base_url: str | None
    api_key_env: str | None
    backend_options: Sequence[str]
    seed: int
    skip_failures: bool
    rpm: float | None
    tpm: float | None
    concurrency: int | None
    attempts: int
    timeout: float
    max_calls: int | None
    max_total_tokens: int | None
    max_cost: float | None
    cache: Path | None
    no_cache: bool
    as_json: bool
    output: Path | None
    quiet: bool
    debug: bool

    def session_options(self, cache: Path | None) -> dict[str, Any]:
        """Keyword arguments of `pizza.Session`, the model excepted.

        Args:
            cache: The file of answers, or ``None`` for none.

        Raises:
            ConfigError: An option's value is not usable.
        """
        return {
            "limits": Limits(
                requests_per_minute=self.rpm,
                tokens_per_minute=self.tpm,
                max_concurrency=self.concurrency,
            ),
            "retry": RetryPolicy(attempts=self.attempts, attempt_timeout_s=self.timeout),
            "budget": Budget(
                max_calls=self.max_calls,
                max_tokens=self.max_total_tokens,
                max_cost=self.max_cost,
            ),
            "cache": cache,
            "base_url": self.base_url,
            "api_key": self._api_key(),
            "backend_options": _named(self.backend_options),
        }

    def cache_path(self) -> Path | None:
        """The file of answers, with its folder made; ``None`` when none is to be kept.

        Raises:
            ConfigError: The folder that the user named cannot be made.
        """
        if self.no_cache:
            return None
        path = self.cache or default_cache()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if self.cache is not None:
                raise ConfigError(
                    f"cannot make the folder of --cache {path}: {error.strerror or error}."
                ) from error
            note(f"answers are not kept: cannot write to {path.parent} ({error.strerror}).")
            return None
        if self.cache is None and not os.access(path.parent, os.W_OK):
            note(f"answers are not kept: cannot write to {path.parent}.")
            return None
        return path

    def check_output(self) -> None:
        """Find out before any money is spent whether the result can be written.

        Raises:
            ConfigError: It cannot.
        """
        check_output(self.output)

    def _api_key(self) -> str | None:
        name = self.api_key_env
        if name is None:
            return None
        if not _VARIABLE.fullmatch(name):
            # Not repeated in the message: it may be a key.
            raise ConfigError(
                "--api-key-env takes the name of an environment variable, for example "
                "--api-key-env OPENAI_API_KEY. What was given is not a name; a key does not "
                "belong on the command line, where other users of the machine can read it."
            )
        if not (key := os.environ.get(name)):
            raise ConfigError(
                f"the environment variable {name} (--api-key-env) is not set: export {name}=..."
            )
        return key


def default_cache() -> Path:
    """Where answers are kept when the user names no place."""
    import platformdirs

    return platformdirs.user_cache_path("pizza", appauthor=False) / "responses.sqlite"


def _named(options: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts to a mapping; values are read as the options of parts are."""
    result: dict[str, Any] = {}
    for option in options:
        if "=" not in option:
            raise ConfigError(f"--backend-option takes NAME=VALUE, not {option!r}.")
        name = option.partition("=")[0].replace("-", "_")
        result[name] = next(iter(parse_choice(f"backend:{option}").options.values()))
    return result


def check_output(output: Path | None, option: str = "--output") -> None:
    """Find out whether a result can be written to the file that an option names.

    Raises:
        ConfigError: It cannot.
    """
    if output is None:
        return
    folder = output.parent
    if output.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(
            f"cannot write {option} {output}: it must be a file in a folder that exists "
            "and can be written to."
        )
