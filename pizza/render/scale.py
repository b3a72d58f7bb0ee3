# SPDX-License-Identifier: Apache-2.0
"""From a score to a colour, a mark or a bar.

Blue supports the output and orange works against it: the pair stays apart for people with any of
the common colour-vision deficiencies, which green and red do not. The steps differ in saturation
and hardly in lightness, so that white text is readable on every step and a strong score stands out
on dark and on light terminals alike.
"""

from __future__ import annotations

import math

_BLUE = ("#55626f", "#4a6488", "#3c64a6", "#2a60c4", "#0f56e0")
_ORANGE = ("#6e6055", "#866046", "#9c5835", "#b04b1f", "#c23a00")
_TEXT = "#ffffff"

FAINT = 0.05
"""Below this share of the largest magnitude a score is not marked."""

_EIGHTHS = " ▏▎▍▌▋▊▉"


def share(score: float, largest: float) -> float:
    """Signed share of the largest magnitude, -1 to 1; 0 when there is nothing to compare."""
    if math.isnan(score) or largest <= 0:
        return 0.0
    return max(-1.0, min(1.0, score / largest))


def style(part: float) -> str:
    """The style of a piece whose score is ``part`` of the largest; ``""`` when it is faint."""
    magnitude = abs(part)
    if magnitude < FAINT:
        return ""
    ramp = _BLUE if part > 0 else _ORANGE
    step = min(len(ramp) - 1, int(magnitude * len(ramp)))
    weight = "bold " if step == len(ramp) - 1 else ""
    return f"{weight}{_TEXT} on {ramp[step]}"


def ramp_styles() -> list[str]:
    """Styles from the strongest against to the strongest for, with the empty one in the middle."""
    against = [f"{_TEXT} on {color}" for color in reversed(_ORANGE)]
    return [*against, "", *(f"{_TEXT} on {color}" for color in _BLUE)]


def bar_style(part: float) -> str:
    """The colour of a bar."""
    return _BLUE[-1] if part >= 0 else _ORANGE[-1]


def bar(part: float, width: int, *, unicode: bool = True) -> str:
    """A bar of up to ``width`` cells."""
    length = abs(part) * width
    if not unicode:
        return "#" * round(length)
    whole = int(length)
    rest = int((length - whole) * 8)
    return "█" * whole + (_EIGHTHS[rest] if rest and whole < width else "")


def number(value: float, digits: int = 2) -> str:
    """A signed number of fixed decimals; ``"n/a"`` when it is undefined.

    Example:
        >>> number(0.5), number(-0.0001), number(float("nan"))
        ('+0.50', '0.00', 'n/a')
    """
    if math.isnan(value):
        return "n/a"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def digits_for(largest: float) -> int:
    """Decimals that show the largest magnitude with three significant figures or so."""
    if largest <= 0 or largest >= 1:
        return 2
    return min(6, 2 - math.floor(math.log10(largest)))
