# SPDX-License-Identifier: Apache-2.0
"""From an error to an exit code and a message that says what to do."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from pizza.errors import (
    AuthError,
    BackendError,
    BudgetExceededError,
    ConfigError,
    PizzaError,
    PluginError,
    RetriesExhaustedError,
)
from pizza.render.text import harmless

OK = 0
UNEXPECTED = 1
WRONG_CALL = 2
NO_KEY = 3
MODEL_FAILED = 4
BUDGET_REACHED = 5
PLUGIN_FAULT = 6
INTERRUPTED = 130

# The first that matches counts.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (AuthError, NO_KEY),
    (ConfigError, WRONG_CALL),
    (BackendError, MODEL_FAILED),
    (RetriesExhaustedError, MODEL_FAILED),
    (BudgetExceededError, BUDGET_REACHED),
    (PluginError, PLUGIN_FAULT),
    (KeyboardInterrupt, INTERRUPTED),
)

# Messages speak to programmers; on the command line the same things have other names.
_OPTIONS = {
    r"requests_per_minute\b": "--rpm",
    r"tokens_per_minute\b": "--tpm",
    r"max_concurrency\b": "--concurrency",
    r"max_calls\b": "--max-calls",
    r"max_cost\b": "--max-cost",
    r"attempt_timeout_s\b": "--timeout",
    r"api_key=": "--api-key-env NAME",
    r"base_url= \(--base-url\)": "--base-url",
}

_KEY_VARIABLE = re.compile(r"(?:_|\b)(?:API_?KEY|TOKEN|SECRET)\Z", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside of nested exception groups, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def chosen(error: BaseException) -> BaseException:
    """The error to report: of several, the first that pizza raised on purpose."""
    found = list(leaves(error))
    return next((e for e in found if isinstance(e, PizzaError)), found[0])


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    error = chosen(error)
    return next((code for kind, code in _CODES if isinstance(error, kind)), UNEXPECTED)


def without_secrets(text: str, variables: Iterable[str] = ()) -> str:
    """``text`` without the values of key variables and without credentials in addresses.

    Backends keep keys out of their messages themselves. This is the second lock on that door: it
    also covers tracebacks and messages of other libraries.
    """
    names = {*variables, *(name for name in os.environ if _KEY_VARIABLE.search(name))}
    for value in sorted((os.environ.get(name, "") for name in names), key=len, reverse=True):
        if len(value) >= 6:
            text = text.replace(value, "[key]")
    return _CREDENTIALS.sub("[credentials]@", text)


def report(
    error: BaseException,
    console: Console,
    *,
    debug: bool = False,
    variables: Iterable[str] = (),
    kept: str = "",
) -> int:
    """Print one message, and the traceback when it is wanted; return the exit code.

    Args:
        error: What was raised.
        console: Standard error.
        debug: Whether to show the traceback.
        variables: Names of environment variables whose values are secrets.
        kept: What a failed run leaves behind for the next one.
    """
    if debug:
        trace = "".join(traceback.format_exception(error))
        console.print(Text(harmless(without_secrets(trace, variables))), soft_wrap=True)
    error = chosen(error)
    code = exit_code(error)
    message = str(error) or type(error).__name__
    if code == UNEXPECTED and not isinstance(error, PizzaError):
        message = (
            f"{type(error).__name__}: {error}. This is a bug in pizza or in a plugin: run it again "
            "with --debug and report what it shows."
        )
    cause = error.__cause__
    if isinstance(error, RetriesExhaustedError) and cause and str(cause) not in message:
        message = f"{message} The last failure: {cause}"
    for pattern, option in _OPTIONS.items():
        message = re.sub(rf"(?<![\w-]){pattern}", option, message)
    text = Text("error: ", style="bold red")
    text.append(harmless(without_secrets(message, variables)), style="not bold default")
    console.print(text, soft_wrap=True)
    if kept and code in (MODEL_FAILED, BUDGET_REACHED, NO_KEY):
        console.print(Text(harmless(kept)), soft_wrap=True)
    return code
