# SPDX-License-Identifier: Apache-2.0
"""OpenAI's tokenizers: spans, counts, and what happens without the ranks."""

import inspect
import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from support.ranks import NAMES, ranks_folder

from pizza import tokenizers
from pizza.errors import EncodingUnavailableError
from pizza.tokenizers import TiktokenTokenizer, encoding_for, estimate_tokens


def byte_encoding(*merges: bytes) -> TiktokenTokenizer:
    """A real encoding of single bytes and a few merges: many tokens cut characters."""
    ranks = {bytes([value]): value for value in range(256)}
    for merge in merges:
        ranks[merge] = len(ranks)
    return TiktokenTokenizer(
        tiktoken.Encoding("bytes", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={})
    )


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A process that has loaded no encoding yet, and an empty cache folder."""
    for name in ("_loaded", "_failed"):
        monkeypatch.setattr(tokenizers, name, {})
    monkeypatch.setattr(tokenizers, "_warned", set())
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def ranks(monkeypatch):
    """The real ranks can be loaded, or have been."""
    monkeypatch.setattr(tokenizers, "_warned", set())
    folder = ranks_folder()
    if folder is None:
        pytest.skip("tiktoken's ranks can neither be found nor downloaded")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


def offline(monkeypatch, do=None):
    """Every download ends in ``do`` or fails like a machine without a network."""
    asked = []

    def fetch(url, *_):
        asked.append(url)
        if do is not None:
            do()
        raise OSError("no route to host")

    monkeypatch.setattr(tiktoken.load, "read_file", fetch)
    return asked


# --- spans -------------------------------------------------------------------------------------


def check_tiling(tokenizer, text):
    spans = tokenizer.spans(text)
    ends = [0]
    for start, end in spans:
        assert start == ends[-1] < end
        ends.append(end)
    assert ends[-1] == len(text)
    assert len(spans) <= tokenizer.count(text)


@given(st.text())
def test_spans_tile_every_text(text):
    check_tiling(byte_encoding(b"th", "é".encode(), "🍕".encode()[:2], b"a\xc3"), text)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("", []),
        ("a🍕b", [(0, 1), (1, 2), (2, 3)]),
        ("aéb", [(0, 2), (2, 3)]),  # the token "a\xc3" reaches into the second character
        ("\x00\n", [(0, 1), (1, 2)]),
        ("שלום", [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_tokens_that_cut_a_character_are_merged(text, spans):
    assert byte_encoding(b"a\xc3").spans(text) == spans


def test_spans_of_the_real_encoding(ranks):
    tokenizer = encoding_for("gpt-4o-mini")
    text = "Ana has 3 red apples 👩‍👩‍👧. مرحبا \x00"
    check_tiling(tokenizer, text)
    assert [text[a:b] for a, b in tokenizer.spans(text)][:6] == [
        "Ana",
        " has",
        " ",
        "3",
        " red",
        " apples",
    ]
    assert tokenizer.count("<|endoftext|>") > 1  # a text, not a command


@pytest.mark.parametrize(
    "make",
    [
        lambda: inspect.getsource(threading) * 3,
        lambda: "a" * 100_000,
        lambda: "🍕" * 30_000,
        lambda: " \n" * 50_000,
        lambda: "^" * 100_000,
    ],
    ids=["code", "letters", "emoji", "space", "marks"],
)
def test_time_grows_with_the_length_and_not_with_its_square(ranks, make):
    text = make()
    tokenizer = encoding_for("gpt-4o")
    tokenizer.spans(text[:1000])

    def seconds(part):
        start = time.process_time()
        tokenizer.spans(part)
        return time.process_time() - start

    short = min(seconds(text[: len(text) // 10]) for _ in range(3))
    assert min(seconds(text) for _ in range(3)) < 40 * max(short, 0.001)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "encoding", "known"),
    [
        ("gpt-4o-mini", "o200k_base", True),
        ("gpt-4.1-nano-2025-04-14", "o200k_base", True),
        ("gpt-4", "cl100k_base", True),
        ("cl100k_base", "cl100k_base", True),
        ("a-model-of-next-year", "o200k_base", False),
    ],
)
def test_a_models_encoding(ranks, caplog, model, encoding, known):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert encoding_for(model).name == encoding
    assert tokenizers.is_known(model) == known
    assert caplog.text.count("does not know") == (0 if known else 1)


def test_an_encoding_is_loaded_once(ranks):
    assert encoding_for("gpt-4o") is encoding_for("o200k_base")


# --- without the ranks ---------------------------------------------------------------------------


def test_missing_ranks_name_the_file_the_variable_and_the_command(fresh, monkeypatch):
    offline(monkeypatch)
    assert not tokenizers.is_cached("gpt-4o")
    with pytest.raises(EncodingUnavailableError) as caught:
        encoding_for("gpt-4o")
    for part in (NAMES[0], str(fresh), "TIKTOKEN_CACHE_DIR", "python -c", "no route to host"):
        assert part in str(caught.value)


def test_a_failure_is_remembered_until_the_file_is_there(fresh, monkeypatch, request):
    asked = offline(monkeypatch)
    for _ in range(3):
        with pytest.raises(EncodingUnavailableError):
            encoding_for("gpt-4o")
    assert len(asked) == 1
    request.getfixturevalue("ranks")
    assert tokenizers.is_cached("gpt-4o")
    assert encoding_for("gpt-4o").count("hello") == 1


def test_a_download_that_hangs_is_given_up(fresh, monkeypatch):
    release = threading.Event()
    offline(monkeypatch, do=release.wait)
    monkeypatch.setattr(tokenizers, "FETCH_DEADLINE_S", 0.02)
    try:
        with pytest.raises(EncodingUnavailableError, match=r"no answer within 0\.02 s"):
            encoding_for("gpt-4o")
    finally:
        release.set()
        for thread in threading.enumerate():
            if thread.name.startswith("tiktoken-"):
                thread.join()


def test_damaged_ranks_are_not_used(fresh, monkeypatch):
    offline(monkeypatch)
    Path(fresh, NAMES[0]).write_bytes(b"IA== 0\n")
    with pytest.raises(EncodingUnavailableError, match="not usable"):
        encoding_for("gpt-4o")


def test_a_cache_that_is_switched_off_is_named(fresh, monkeypatch):
    offline(monkeypatch)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert tokenizers.ranks_path("o200k_base") is None
    with pytest.raises(EncodingUnavailableError, match="switched off"):
        encoding_for("gpt-4o")


def test_the_file_names_are_tiktokens(fresh, monkeypatch):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(fresh))
    assert tokenizers.ranks_path("o200k_base") == fresh / NAMES[0]
    assert tokenizers.ranks_path("o200k_harmony") == fresh / NAMES[0]
    assert tokenizers.ranks_path("cl100k_base") == fresh / NAMES[1]
    monkeypatch.delenv("DATA_GYM_CACHE_DIR")
    assert tokenizers.ranks_path("o200k_base").parent.name == "data-gym-cache"


def test_importing_the_module_does_not_import_tiktoken():
    code = "import sys, pizza.tokenizers; print('tiktoken' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- the estimate ------------------------------------------------------------------------------

TEXTS = {
    "prose": inspect.getdoc(threading.Condition) + inspect.getdoc(json.dumps),
    "code": inspect.getsource(json.decoder),
    "json": json.dumps([{"id": n, "share": n / 7, "name": f"item {n}"} for n in range(200)]),
    "german": "Die Katze überlegt, ob sie die Straße überqueren möchte. " * 5,
    "russian": "Быстрая коричневая лиса перепрыгивает через ленивую собаку. " * 5,
    "chinese": "我们在这个问题上花了很多时间，但是仍然没有答案。" * 5,
    "capitals": "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RUNS. " * 5,
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_estimate_is_rather_too_high(ranks, name):
    text = TEXTS[name]
    ratio = estimate_tokens(text) / encoding_for("gpt-4o").count(text)
    assert 0.98 <= ratio <= (1.4 if name in ("prose", "code", "json", "german") else 2.1)


@given(st.text(max_size=200))
def test_the_estimate_is_positive_and_never_falls_when_a_word_is_added(text):
    assert 1 <= estimate_tokens(text) <= estimate_tokens(text + " word")
