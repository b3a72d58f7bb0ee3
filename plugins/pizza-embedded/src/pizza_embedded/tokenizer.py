# SPDX-License-Identifier: Apache-2.0
"""The model's byte-level BPE tokenizer, read from ``tokenizer.json`` and run by tiktoken.

A word is encoded the same wherever it stands because every piece of text is given one leading
space before it is encoded, and loses one when it is decoded. So the ``Bob`` that opens a prompt,
the ``Bob`` inside it and the ``Bob`` of the answer are the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tiktoken

Span = tuple[int, int]


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, for the
    characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet


class Tokenizer:
    """Text to token ids and back; immutable, safe to share between threads.

    Attributes:
        special: Ids of the special tokens by name, for example ``"<|end|>"``.
        vocab_size: Number of ids.
    """

    def __init__(self, pattern: str, ranks: dict[bytes, int], special: dict[str, int]) -> None:
        """Build a tokenizer.

        Args:
            pattern: Regular expression that cuts a text before pairs are merged.
            ranks: Id of each token by its bytes; a lower id is merged first.
            special: Id of each special token by its name.
        """
        self.special = dict(special)
        self.vocab_size = len(ranks) + len(special)
        self._encoding = tiktoken.Encoding(
            "pizza-embedded",
            pat_str=pattern,
            mergeable_ranks=ranks,
            special_tokens=special,
            explicit_n_vocab=self.vocab_size,
        )
        self._names = {index: name for name, index in special.items()}
        self._bytes = {index: token for token, index in ranks.items()}

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a ``tokenizer.json`` as the ``tokenizers`` library writes it."""
        data = json.loads(path.read_text(encoding="utf-8"))
        special = {str(entry["content"]): int(entry["id"]) for entry in data["added_tokens"]}
        alphabet = byte_alphabet()
        ranks = {
            bytes(alphabet[character] for character in token): int(index)
            for token, index in data["model"]["vocab"].items()
            if token not in special
        }
        pattern = data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        return cls(str(pattern), ranks, special)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; names of special tokens in it are ordinary text."""
        return self._encoding.encode_ordinary(" " + text) if text else []

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """Return the ids of a text and the code points that each stands for.

        Returns:
            The ids, and one half-open span per id. The spans tile the text in order; a character
            that is cut into several tokens belongs to the first of them, the others are empty.
        """
        ids = self.encode(text)
        # ends[i] is the number of bytes up to and including the first byte of character i.
        starts, position = [], 1
        for character in text:
            starts.append(position)
            position += len(character.encode("utf-8", "replace"))
        spans, n_bytes, index = [], 0, 0
        for token in ids:
            n_bytes += len(self._bytes[token])
            start = index
            while index < len(starts) and starts[index] < n_bytes:
                index += 1
            spans.append((start, index))
        return ids, spans

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one id; a special token's are those of its name."""
        name = self._names.get(token)
        return self._bytes[token] if name is None else name.encode()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of some ids as they stand, without special tokens."""
        return b"".join(self._bytes[token] for token in ids if token not in self._names)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a whole message or prompt, the inverse of :meth:`encode`.

        The space that encoding put in front is taken off; special tokens are left out.
        """
        return self.decode_bytes(ids).removeprefix(b" ").decode("utf-8", "replace")

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token of a message, which joined are the message.

        Like :meth:`decode`, without the space in front of the first one.
        """
        pieces = [self.token_bytes(token) for token in ids]
        if pieces and ids[0] not in self._names:
            pieces[0] = pieces[0].removeprefix(b" ")
        return pieces
