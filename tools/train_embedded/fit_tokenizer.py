# SPDX-License-Identifier: Apache-2.0
"""Fits the byte-level BPE vocabulary and writes it in the format of ``tokenizers``."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from pizza_embedded import vocabulary, world
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def texts(seed: int, count: int) -> Iterator[str]:
    """Yield the texts that the vocabulary is fitted to."""
    rng = random.Random(f"tokenizer/{seed}")
    # Numbers and known words come often enough to become tokens; made-up words share syllables.
    for number in range(100):
        yield f"{number} " * 400
        yield f":{number:02d} " * 400
    words = (*vocabulary.NAMES, *vocabulary.ITEMS, *vocabulary.COUNTRIES, *vocabulary.CITIES)
    for word in (*words, *vocabulary.COLORS, *vocabulary.POSITIVE, *vocabulary.NEGATIVE):
        yield f" {word}" * 10
    for filler in vocabulary.FILLERS:
        yield f" {filler}" * 20
    for _ in range(count):
        task = rng.choice(["inventory", "inventory", "capital", "clock", "sentiment"])
        drawn = world.problem(rng, task, names=rng.choice(["mixed", "known"]))
        if drawn.questions:
            yield " " + world.example(drawn, drawn.questions[0], "chat").text
        yield " " + vocabulary.made_up(rng)
        yield " " + vocabulary.made_up(rng).capitalize()
    for word in ("unknown", "...", "_", "[MASK]", "Q:", "A:", "Question:", "Repeat: ", "Words: ",
                 "Which word comes after"):  # fmt: skip
        yield f" {word}" * 2000


def fit(folder: Path, *, seed: int, vocab_size: int = 1024, count: int = 12000) -> None:
    """Fit a vocabulary and write ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        folder: Where to write.
        seed: Seed of the texts.
        vocab_size: Number of ids, special tokens included.
        count: Number of generated documents.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(seed, count), trainer)
    data = json.loads(tokenizer.to_str())
    data["model"]["merges"] = all_merges(data["model"]["vocab"])
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
        "pad_token": "<|pad|>",
        "eos_token": "<|end|>",
        "additional_special_tokens": list(SPECIAL[2:]),
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def all_merges(vocab: dict[str, int]) -> list[list[str]]:
    """Return every pair of tokens that joins to a token, in order of the token's id.

    A fitted vocabulary lists one pair per token; tiktoken merges any pair that makes a token.
    Listing all of them makes both do the same.
    """
    merges = []
    for token, _ in sorted(vocab.items(), key=lambda item: item[1]):
        if token in SPECIAL:
            continue
        cuts = [[token[:cut], token[cut:]] for cut in range(1, len(token))]
        merges += [[left, right] for left, right in cuts if left in vocab and right in vocab]
    return merges
