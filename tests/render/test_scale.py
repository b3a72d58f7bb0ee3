# SPDX-License-Identifier: Apache-2.0
"""From scores to colours and numbers."""

import colorsys
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.render import scale

scores = st.floats(allow_nan=True, allow_infinity=True)


@given(scores, st.floats(min_value=0, allow_nan=False))
def test_a_share_is_between_minus_one_and_one(score, largest):
    assert -1 <= scale.share(score, largest) <= 1


@given(st.floats(-1, 1))
def test_supporting_and_opposing_scores_differ_in_hue_and_faint_ones_have_none(part):
    style = scale.style(part)
    if abs(part) < scale.FAINT:
        assert style == ""
        return
    red, _, blue = (int(style[-6:][i : i + 2], 16) for i in (0, 2, 4))
    assert (blue > red) == (part > 0)
    assert style != scale.style(-part)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("style", [s for s in scale.ramp_styles() if s])
def test_text_is_readable_on_every_step(style):
    """Given a step of the ramp -> contrast of at least 4.5 to 1, as WCAG AA asks for."""
    text, _, ground = style.partition(" on ")
    ratio = (luminance(text) + 0.05) / (luminance(ground) + 0.05)
    assert ratio >= 4.5


@pytest.mark.parametrize("sign", [1, -1])
def test_stronger_scores_are_more_saturated(sign):
    steps = [scale.style(sign * part)[-7:] for part in (0.1, 0.3, 0.5, 0.7, 0.9)]
    saturations = [
        colorsys.rgb_to_hsv(*(int(s[i : i + 2], 16) / 255 for i in (1, 3, 5)))[1] for s in steps
    ]
    assert all(a < b for a, b in itertools.pairwise(saturations))


@given(st.floats(-1, 1), st.integers(1, 40), st.booleans())
def test_bars_fit_and_grow(part, width, unicode):
    bar = scale.bar(part, width, unicode=unicode)
    assert len(bar) <= width
    assert len(scale.bar(part / 2, width, unicode=unicode)) <= len(bar)
    assert unicode or bar.isascii()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.234, "+1.23"),
        (-0.5, "-0.50"),
        (0.0, "0.00"),
        (-0.001, "0.00"),
        (math.nan, "n/a"),
        (math.inf, "+inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_carry_their_sign(value, text):
    assert scale.number(value) == text


@pytest.mark.parametrize(("largest", "digits"), [(9.2, 2), (1, 2), (0.5, 3), (0.05, 4), (0, 2)])
def test_small_scales_get_more_decimals(largest, digits):
    assert scale.digits_for(largest) == digits
