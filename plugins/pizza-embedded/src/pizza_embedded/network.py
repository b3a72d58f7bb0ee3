# SPDX-License-Identifier: Apache-2.0
"""The network's forward pass in numpy: a Llama with keys and values kept between steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_DTYPES = {"F16": np.float16, "F32": np.float32}


def read_safetensors(data: bytes) -> dict[str, Floats]:
    """Return the tensors of a ``.safetensors`` file in single precision, by name."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        flat = np.frombuffer(data[start:end], dtype=_DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).astype(np.float32)
    return tensors


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one block; every matrix is laid out ``(inputs, outputs)``."""

    attention_norm: Floats
    query: Floats
    key: Floats
    value: Floats
    output: Floats
    feed_norm: Floats
    gate: Floats
    up: Floats
    down: Floats


@dataclass(slots=True)
class Cache:
    """Keys and values of a batch, one array ``(rows, heads, capacity, head width)`` per layer."""

    keys: list[Floats]
    values: list[Floats]

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return int(self.keys[0].shape[2])

    def grow(self, extra: int) -> None:
        """Make room for ``extra`` more positions."""
        room = ((0, 0), (0, 0), (0, extra), (0, 0))
        self.keys = [np.pad(keys, room) for keys in self.keys]
        self.values = [np.pad(values, room) for values in self.values]


class Network:
    """The forward pass; holds weights only, so that threads may share it.

    Attributes:
        embeddings: ``(vocabulary, width)``, also the output layer; read-only.
        context_length: Most positions a sequence may have.
    """

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Floats]) -> None:
        self.embeddings = tensors["model.embed_tokens.weight"]
        self.embeddings.flags.writeable = False
        self.context_length = int(config["max_position_embeddings"])
        self._unembed = np.ascontiguousarray(self.embeddings.T)
        self._heads = int(config["num_attention_heads"])
        self._head_width = int(config["head_dim"])
        self._epsilon = np.float32(config["rms_norm_eps"])
        self._norm_weight = tensors["model.norm.weight"]
        n_layers = int(config["num_hidden_layers"])
        self._layers = [
            _layer(tensors, f"model.layers.{i}.", self._head_width) for i in range(n_layers)
        ]
        half = self._head_width // 2
        rates = float(config["rope_theta"]) ** (-np.arange(half) / half)
        angles = np.outer(np.arange(self.context_length), rates)
        self._cos: Floats = np.cos(np.hstack([angles, angles])).astype(np.float32)
        self._sin: Floats = np.sin(np.hstack([-angles, angles])).astype(np.float32)

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Read ``config.json`` and ``model.safetensors``."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(config, read_safetensors((folder / "model.safetensors").read_bytes()))

    def prefill(self, ids: Ints, wanted: Ints, extra: int = 0) -> tuple[Floats, Cache]:
        """Run whole sequences.

        Args:
            ids: ``(rows, time)``, padded on the right with any id.
            wanted: ``(rows, n)`` positions whose hidden states are returned. The last layer
                computes only these.
            extra: Positions to reserve in the cache for :meth:`step`; 0 keeps none.

        Returns:
            Final hidden states ``(rows, n, width)`` and the cache.
        """
        rows, time = ids.shape
        hidden = self.embeddings[ids]
        positions = np.broadcast_to(np.arange(time), (rows, time))
        cache = Cache([], [])
        for index, layer in enumerate(self._layers):
            normed = self._norm(hidden, layer.attention_norm)
            keys, values = self._keys_values(layer, normed, positions)
            if index == len(self._layers) - 1:
                hidden = np.take_along_axis(hidden, wanted[:, :, None], axis=1)
                normed = np.take_along_axis(normed, wanted[:, :, None], axis=1)
                positions = wanted
            hidden = hidden + self._attend(layer, normed, positions, keys, values)
            hidden = hidden + self._feed(layer, hidden)
            if extra:
                cache.keys.append(keys)
                cache.values.append(values)
        if extra:
            cache.grow(extra)
        return self._norm(hidden, self._norm_weight), cache

    def step(self, ids: Ints, positions: Ints, cache: Cache) -> Floats:
        """Run one more token of each row; the cache takes it in.

        Args:
            ids: ``(rows,)``.
            positions: ``(rows,)``, where each token stands.
            cache: Of the same rows.

        Returns:
            Final hidden states ``(rows, width)``.
        """
        hidden = self.embeddings[ids][:, None]
        places = positions[:, None]
        every = np.arange(len(ids))
        for index, layer in enumerate(self._layers):
            normed = self._norm(hidden, layer.attention_norm)
            key, value = self._keys_values(layer, normed, places)
            cache.keys[index][every, :, positions] = key[:, :, 0]
            cache.values[index][every, :, positions] = value[:, :, 0]
            hidden = hidden + self._attend(
                layer, normed, places, cache.keys[index], cache.values[index]
            )
            hidden = hidden + self._feed(layer, hidden)
        return self._norm(hidden, self._norm_weight)[:, 0]

    def log_probs(self, hidden: Floats) -> Floats:
        """Return natural log-probabilities ``(..., vocabulary)`` of hidden ``(..., width)``."""
        logits = hidden @ self._unembed
        logits -= logits.max(axis=-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(
            np.float32
        )
        return logits

    def _norm(self, hidden: Floats, weight: Floats) -> Floats:
        square: Floats = np.einsum("...d,...d->...", hidden, hidden)
        mean = square / np.float32(hidden.shape[-1])
        scale: Floats = (1 / np.sqrt(mean + self._epsilon)).astype(np.float32)
        normed: Floats = hidden * scale[..., None] * weight
        return normed

    def _split(self, states: Floats) -> Floats:
        rows, time, _ = states.shape
        return states.reshape(rows, time, self._heads, self._head_width).transpose(0, 2, 1, 3)

    def _rotate(self, states: Floats, positions: Ints) -> Floats:
        half = self._head_width // 2
        swapped = np.concatenate([states[..., half:], states[..., :half]], axis=-1)
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        turned: Floats = np.add(states * cos, swapped * sin, dtype=np.float32)
        return turned

    def _keys_values(self, layer: Layer, normed: Floats, positions: Ints) -> tuple[Floats, Floats]:
        keys = self._rotate(self._split(_linear(normed, layer.key)), positions)
        return keys, self._split(_linear(normed, layer.value))

    def _attend(
        self, layer: Layer, normed: Floats, positions: Ints, keys: Floats, values: Floats
    ) -> Floats:
        """Attend from ``positions`` to every key that stands at or before each."""
        query = self._rotate(self._split(_linear(normed, layer.query)), positions)
        scores = query @ keys.transpose(0, 1, 3, 2)
        visible = np.arange(keys.shape[2]) <= positions[:, :, None]
        np.copyto(scores, np.float32(-1e30), where=~visible[:, None])
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        mixed = ((scores @ values) / total).transpose(0, 2, 1, 3)
        return _linear(mixed.reshape(*normed.shape[:2], -1), layer.output)

    def _feed(self, layer: Layer, hidden: Floats) -> Floats:
        normed = self._norm(hidden, layer.feed_norm)
        gate, up = _linear(normed, layer.gate), _linear(normed, layer.up)
        # In place: making these large arrays anew would cost more than the arithmetic. A very
        # negative gate overflows exp to infinity, and gate / infinity is the right -0.
        with np.errstate(over="ignore"):
            squashed = np.exp(np.negative(gate))
            squashed += 1
            gate /= squashed
            gate *= up
        return _linear(gate, layer.down)


def _linear(states: Floats, weights: Floats) -> Floats:
    """Multiply ``(rows, time, inputs)`` by ``(inputs, outputs)`` as one matrix, not row by row."""
    rows, time, width = states.shape
    result: Floats = states.reshape(rows * time, width) @ weights
    return result.reshape(rows, time, -1)


def _layer(tensors: Mapping[str, Floats], prefix: str, head_width: int) -> Layer:
    def matrix(name: str, scale: float = 1.0) -> Floats:
        return np.ascontiguousarray(tensors[f"{prefix}{name}.weight"].T * np.float32(scale))

    return Layer(
        attention_norm=tensors[f"{prefix}input_layernorm.weight"],
        # The scale of attention scores is put into the weights once.
        query=matrix("self_attn.q_proj", head_width**-0.5),
        key=matrix("self_attn.k_proj"),
        value=matrix("self_attn.v_proj"),
        output=matrix("self_attn.o_proj"),
        feed_norm=tensors[f"{prefix}post_attention_layernorm.weight"],
        gate=matrix("mlp.gate_proj"),
        up=matrix("mlp.up_proj"),
        down=matrix("mlp.down_proj"),
    )
