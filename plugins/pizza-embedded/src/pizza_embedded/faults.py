# SPDX-License-Identifier: Apache-2.0
"""Faults that a server can be told to have: which request, which attempt, which fault.

The choice depends on the seed, the request's body and the number of the attempt, and on nothing
else: a run repeats exactly, and a retry of the same body is a new draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("drop", "hang", "malformed", "truncate")
DEFAULT_HANG_S = 10.0


def uniform(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but ``parts``."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to fail.

    Attributes:
        kind: ``"status"`` (an error answer), ``"drop"`` (the connection is cut without an
            answer), ``"hang"`` (the answer comes late), ``"malformed"`` (200 with a body that is
            not JSON) or ``"truncate"`` (200 with a body that ends before its length).
        share: Share of the attempts that fail this way.
        status: HTTP status, for ``"status"``.
        seconds: How long it hangs, for ``"hang"``.
    """

    kind: str
    share: float
    status: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in a specification: the status or the kind."""
        return str(self.status) if self.kind == "status" else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """All faults of a server.

    Attributes:
        faults: The faults; their shares add up to at most 1.
        seed: Chooses which attempts they hit.
    """

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Read ``"500=0.01,drop=0.01,hang=0.01:10,malformed=0.01,truncate=0.01,seed=7"``.

        Raises:
            ValueError: The text is not of that form; the message says what is.
        """
        faults: list[Fault] = []
        seed = 0
        for item in filter(None, (piece.strip() for piece in text.split(","))):
            name, equals, value = item.partition("=")
            if not equals:
                raise ValueError(f"the fault {item!r} is not NAME=SHARE, e.g. drop=0.01.")
            if name == "seed":
                seed = int(_number(value, item))
            else:
                faults.append(_fault(name, value, item))
        if sum(fault.share for fault in faults) > 1:
            raise ValueError(f"the shares of the faults {text!r} add up to more than 1.")
        return cls(faults=tuple(faults), seed=seed)

    def choose(self, key: str, attempt: int) -> Fault | None:
        """The fault of one attempt, or ``None``.

        Args:
            key: Identifies the request's body.
            attempt: 0 for the first attempt, counting up.
        """
        if not self.faults:
            return None
        return _pick(self.faults, uniform("fault", self.seed, key, attempt))


def _pick(faults: Sequence[Fault], draw: float) -> Fault | None:
    for fault in faults:
        draw -= fault.share
        if draw < 0:
            return fault
    return None


def _fault(name: str, value: str, item: str) -> Fault:
    share_text, colon, extra = value.partition(":")
    share = _number(share_text, item)
    if not 0 <= share <= 1:
        raise ValueError(f"the share in {item!r} is not between 0 and 1.")
    if name == "hang":
        seconds = _number(extra, item) if colon else DEFAULT_HANG_S
        return Fault(kind=name, share=share, seconds=seconds)
    if colon:
        raise ValueError(f"only 'hang' takes seconds after a colon, not {item!r}.")
    if name.isdigit() and 500 <= int(name) <= 599:
        return Fault(kind="status", share=share, status=int(name))
    if name not in KINDS:
        raise ValueError(
            f"no fault is called {name!r}: use a status from 500 to 599, {', '.join(KINDS)} "
            "or seed."
        )
    return Fault(kind=name, share=share)


def _number(text: str, item: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} in the fault {item!r} is not a number.") from None
