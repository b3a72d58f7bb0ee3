# SPDX-License-Identifier: Apache-2.0
import functools
import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza._engine import codec
from pizza.completion import Completion, Usage, pack_alternatives

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
logprob = st.one_of(
    st.floats(-50, 0), st.floats(-50, 0, width=32), st.sampled_from([0.0, -0.0, -math.inf])
)


@st.composite
def completions(draw):
    n = draw(st.integers(0, 5))
    rows = None
    if draw(st.booleans()):
        row = st.lists(st.tuples(text, logprob), max_size=4)
        rows = draw(st.lists(row, min_size=n, max_size=n))
    names, values = (None, None) if rows is None else pack_alternatives(rows)
    return Completion(
        text=draw(text),
        tokens=tuple(draw(st.lists(text, min_size=n, max_size=n))),
        logprobs=np.array(draw(st.lists(logprob, min_size=n, max_size=n)), dtype=float)
        if draw(st.booleans())
        else None,
        alternative_tokens=names,
        alternative_logprobs=values,
        finish_reason=draw(st.none() | text),
        usage=Usage(prompt_tokens=draw(st.integers(0, 10**6)), completion_tokens=3),
        model=draw(text),
    )


def same_bits(a, b):
    return (a is None and b is None) or (a.shape == b.shape and a.tobytes() == b.tobytes())


@given(completions())
def test_nothing_is_lost(completion):
    back = codec.decode(codec.encode(completion))
    assert back == completion
    assert same_bits(back.logprobs, completion.logprobs)
    assert same_bits(back.alternative_logprobs, completion.alternative_logprobs)


def test_missing_log_probabilities_stay_missing():
    back = codec.decode(
        codec.encode(Completion(text="a", tokens=("a",), logprobs=np.array([np.nan])))
    )
    assert np.isnan(back.logprobs[0])


def test_arrays_come_back_read_only():
    back = codec.decode(codec.encode(typical()))
    assert not back.logprobs.flags.writeable
    assert not back.alternative_logprobs.flags.writeable


@functools.cache
def typical():
    rng = np.random.default_rng(0)
    words = [f" word{i}" for i in range(400)]
    rows = [
        [(words[rng.integers(400)], float(-rng.exponential(5))) for _ in range(20)]
        for _ in range(16)
    ]
    names, values = pack_alternatives(rows)
    return Completion(
        text="".join(row[0][0] for row in rows),
        tokens=tuple(row[0][0] for row in rows),
        logprobs=values[:, 0].copy(),
        alternative_tokens=names,
        alternative_logprobs=values,
        usage=Usage(prompt_tokens=100, completion_tokens=16),
    )


def test_sixteen_tokens_with_twenty_alternatives_stay_below_six_kilobytes():
    assert len(codec.encode(typical())) <= 6 * 1024


def test_many_texts_are_compressed():
    rows = [[(f" word{j}", -float(j)) for j in range(20)] for _ in range(64)]
    names, values = pack_alternatives(rows)
    long = Completion(
        text="x",
        tokens=(" word0",) * 64,
        alternative_tokens=names,
        alternative_logprobs=values,
    )
    texts = sum(len(text) for row in names for text in row)
    data = codec.encode(long)
    assert len(data) - 4 * values.size < texts / 10
    assert codec.decode(data) == long


def test_short_texts_that_were_compressed_by_earlier_versions_are_read():
    """Given an entry as it was written when all texts were compressed -> the same completion."""
    data = codec.encode(typical())
    kind, length = codec._FORM.unpack_from(data, codec._HEAD.size)
    assert kind == b"n"
    start = codec._HEAD.size + codec._FORM.size
    packed = zlib.compress(data[start : start + length], 1)
    body = codec._FORM.pack(b"z", len(packed)) + packed + data[start + length :]
    assert codec.decode(codec._HEAD.pack(b"PZ1", zlib.crc32(body)) + body) == typical()


@given(st.data())
def test_damage_is_found(data):
    good = codec.encode(typical())
    at = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    bad = good[:at] + bytes([good[at] ^ (1 << bit)]) + good[at + 1 :]
    with pytest.raises(codec.DamagedError):
        codec.decode(bad)


@given(st.binary(max_size=200))
def test_bytes_of_something_else_are_found(data):
    with pytest.raises(codec.DamagedError):
        codec.decode(data)


@given(st.integers(0, 3000))
def test_a_torn_value_is_found(length):
    with pytest.raises(codec.DamagedError):
        codec.decode(codec.encode(typical())[:length])


def test_a_valid_checksum_over_nonsense_is_damage_too():
    packed = zlib.compress(b"\xc1 not msgpack")
    body = codec._FORM.pack(b"z", len(packed)) + packed
    with pytest.raises(codec.DamagedError):
        codec.decode(codec._HEAD.pack(b"PZ1", zlib.crc32(body)) + body)
