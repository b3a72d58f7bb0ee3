# SPDX-License-Identifier: Apache-2.0
"""The network while it is trained: a Llama, written out so that a step costs little on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "dtype": "float16",
}


class Network(nn.Module):
    """Decoder with rotary positions, RMS norms and gated feed-forward layers.

    Parameter names are those of ``transformers``' Llama, so that a saved state loads there.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]
        self.embed = nn.Parameter(torch.randn(config["vocab_size"], width) * 0.02)
        shapes = {
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (width, width),
            "self_attn.v_proj": (width, width),
            "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        self.layers = nn.ModuleList()
        for _ in range(config["num_hidden_layers"]):
            layer = nn.ParameterDict()
            for name, shape in shapes.items():
                layer[name.replace(".", "/")] = nn.Parameter(torch.randn(shape) * shape[1] ** -0.5)
            layer["input_layernorm"] = nn.Parameter(torch.ones(width))
            layer["post_attention_layernorm"] = nn.Parameter(torch.ones(width))
            self.layers.append(layer)
        self.norm = nn.Parameter(torch.ones(width))
        half = config["head_dim"] // 2
        rates = config["rope_theta"] ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.outer(torch.arange(config["max_position_embeddings"]).float(), rates)
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, dim=-1), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the final hidden states ``(batch, time, width)`` of ids ``(batch, time)``.

        Padding is on the right, so causal attention alone keeps it out of the others' way.
        """
        batch, time = ids.shape
        hidden = functional.embedding(ids, self.embed)
        width = hidden.shape[-1]
        cos, sin = self.cos[:time], self.sin[:time]
        for layer in self.layers:
            normed = self._norm(hidden, layer["input_layernorm"])
            query, key, value = (
                functional.linear(normed, layer[f"self_attn/{name}_proj"])
                .view(batch, time, self.heads, -1)
                .transpose(1, 2)
                for name in "qkv"
            )
            mixed = functional.scaled_dot_product_attention(
                self._rotate(query, cos, sin), self._rotate(key, cos, sin), value, is_causal=True
            )
            mixed = mixed.transpose(1, 2).reshape(batch, time, width)
            hidden = hidden + functional.linear(mixed, layer["self_attn/o_proj"])
            normed = self._norm(hidden, layer["post_attention_layernorm"])
            gate = functional.silu(functional.linear(normed, layer["mlp/gate_proj"]))
            up = functional.linear(normed, layer["mlp/up_proj"])
            hidden = hidden + functional.linear(gate * up, layer["mlp/down_proj"])
        return self._norm(hidden, self.norm)

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(hidden, weight.shape, weight, self.config["rms_norm_eps"])

    @staticmethod
    def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = states.chunk(2, dim=-1)
        return states * cos + torch.cat([-second, first], dim=-1) * sin

    def matrices(self) -> list[nn.Parameter]:
        """Return the hidden weight matrices, which Muon trains."""
        return [p for layer in self.layers for p in layer.values() if p.ndim == 2]

    def others(self) -> list[nn.Parameter]:
        """Return the embedding and the norms, which AdamW trains."""
        chosen = {id(parameter) for parameter in self.matrices()}
        return [p for p in self.parameters() if id(p) not in chosen]

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the weights in half precision, with the configuration ``transformers`` reads."""
        tensors = {}
        for name, tensor in (state or self.state_dict()).items():
            full = {"embed": "embed_tokens.weight", "norm": "norm.weight"}.get(name)
            full = full or name.replace("/", ".") + ".weight"
            tensors["model." + full] = tensor.detach().to(torch.float16).contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        _write_json(folder / "config.json", self.config)
        _write_json(
            folder / "generation_config.json",
            {"eos_token_id": self.config["eos_token_id"], "pad_token_id": 0, "do_sample": False},
        )


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


class Muon:
    """Momentum whose update is made orthogonal (Jordan et al., 2024), in single precision.

    Matrices of one shape are treated in one batch: on a CPU that halves its cost.
    """

    COEFFICIENTS = (3.4445, -4.7750, 2.0315)

    def __init__(self, matrices: list[nn.Parameter], momentum: float, decay: float) -> None:
        groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape) for g in self.groups]
        self.momentum = momentum
        self.decay = decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the matrices from their gradients and clear those."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = self._orthogonal(gradient.lerp(buffer, self.momentum))
            scale = 0.2 * max(group[0].shape) ** 0.5
            for index, matrix in enumerate(group):
                matrix.mul_(1 - rate * self.decay)
                matrix.add_(update[index], alpha=-rate * scale)
                matrix.grad = None

    def _orthogonal(self, batch: Tensor) -> Tensor:
        a, b, c = self.COEFFICIENTS
        tall = batch.shape[-2] > batch.shape[-1]
        x = batch.mT if tall else batch
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.mT if tall else x
