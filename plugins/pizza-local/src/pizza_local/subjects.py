# SPDX-License-Identifier: Apache-2.0
"""A `Subject`: one input and one output on one model, as a differentiable function of points.

A *point* is a value of what enters a layer, for every position of the input: at layer 0 the input
embeddings, at layer k the output of block k - 1. Methods move points; subjects give logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pizza.errors import CapabilityError
from pizza_local.encoding import Encoding, InputToken


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A model and what is known of its build. Lives as long as the opened model.

    Attributes:
        model: The model, in evaluation mode.
        blocks: Its layers, from the input on; empty where they were not found.
        name: For messages.
        tokenizer: Its tokenizer, or ``None``.
    """

    model: Any
    blocks: tuple[nn.Module, ...]
    name: str
    tokenizer: Any = None

    @property
    def embedding(self) -> Any:
        """The module that embeds token ids."""
        return self.model.get_input_embeddings()

    @property
    def table(self) -> Tensor:
        """Embeddings of all token ids, ``(vocabulary, dimensions)``; detached."""
        found: Tensor = self.embedding.weight
        return found.detach()

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.table.device

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return len(self.table)


def find_blocks(model: Any) -> tuple[nn.Module, ...]:
    """The layers that the input goes through: of the encoder, where there is a decoder too."""
    root = model
    if getattr(model.config, "is_encoder_decoder", False):
        root = model.get_encoder()
    lists = [
        tuple(module)
        for module in root.modules()
        if isinstance(module, nn.ModuleList)
        and len(module)
        and len({type(child) for child in module}) == 1
    ]
    n_layers = getattr(model.config, "num_hidden_layers", None) or getattr(
        model.config, "num_layers", None
    )
    fitting = [blocks for blocks in lists if len(blocks) == n_layers]
    # Outer lists come before the lists inside their blocks.
    return fitting[0] if fitting else ()


class Subject(ABC):
    """One input and one output on one model.

    Attributes:
        network: The model.
        tokens: The positions of a point, ``n_positions`` of them.
        targets: Id at every output position, ``(n,)`` long.
    """

    def __init__(
        self, network: Network, tokens: Sequence[InputToken], targets: Sequence[int]
    ) -> None:
        self.network = network
        self.tokens = tuple(tokens)
        self.targets = torch.tensor(list(targets), device=network.device)

    @property
    def n_layers(self) -> int:
        """Number of blocks: points exist at layers 0 to ``n_layers``."""
        return len(self.network.blocks)

    @property
    def length(self) -> int:
        """Positions that one point sends through the network."""
        return len(self.tokens)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The point of these ids, ``(n_positions, dimensions)``; detached."""
        index = torch.tensor(list(ids), device=self.network.device)
        with torch.no_grad():
            point: Tensor = self.network.embedding(index)
        return point.detach()

    def start(self) -> Tensor:
        """The input's own point at layer 0."""
        return self.embed([token.id for token in self.tokens])

    @abstractmethod
    def call(self, points: Tensor, **options: Any) -> Any:
        """Run the model on points of layer 0, ``(b, n_positions, d)``; its own output object."""

    @abstractmethod
    def read(self, output: Any) -> Tensor:
        """Logits ``(b, n, vocabulary)`` at the output positions, from what `call` returned."""

    def logits(self, points: Tensor, layer: int = 0) -> Tensor:
        """Logits ``(b, n, vocabulary)`` of points ``(b, n_positions, d)`` at a layer.

        In single precision at least.
        """
        if layer == 0:
            output = self.call(points)
        else:
            start = self.start().expand(len(points), -1, -1)
            with self._entering(layer, points):
                output = self.call(start)
        logits = self.read(output)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def states(self, points: Tensor, layer: int) -> Tensor:
        """What enters ``layer`` when ``points`` enter layer 0; both ``(b, n_positions, d)``."""
        if layer == 0:
            return points.detach()
        seen: list[Tensor] = []

        def look(_: nn.Module, __: Any, output: Any) -> None:
            seen.append((output[0] if isinstance(output, tuple) else output).detach())

        handle = self._block(layer).register_forward_hook(look)
        try:
            with torch.no_grad():
                self.call(points)
        finally:
            handle.remove()
        return seen[0]

    def _block(self, layer: int) -> nn.Module:
        if not 0 < layer <= self.n_layers:
            what = f"has layers 0 to {self.n_layers}" if self.n_layers else "has no known layers"
            raise CapabilityError(
                f"there is no layer {layer}: {self.network.name} {what} (0 = embeddings, "
                "k = output of the k-th block).",
                needed="gradients",
                backend=self.network.name,
            )
        return self.network.blocks[layer - 1]

    @contextmanager
    def _entering(self, layer: int, points: Tensor) -> Iterator[None]:
        def replace(_: nn.Module, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (points, *output[1:])
            return points

        handle = self._block(layer).register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


class CausalSubject(Subject):
    """A decoder: it reads the prompt and the output so far, and predicts the next token.

    A point covers the prompt and all output tokens but the last.
    """

    def __init__(
        self, network: Network, encoding: Encoding, targets: Sequence[int], pieces: Sequence[str]
    ) -> None:
        before = [
            InputToken(id=index, text=piece, origin="output")
            for index, piece in zip(targets[:-1], pieces, strict=False)
        ]
        super().__init__(network, [*encoding.tokens, *before], targets)
        first = len(encoding.ids) - 1
        self.positions = torch.arange(first, first + len(targets), device=network.device)

    def call(self, points: Tensor, **options: Any) -> Any:
        """See `Subject.call`. Logits are computed at the output positions only."""
        positions = torch.arange(points.shape[1], device=points.device).unsqueeze(0)
        return self.network.model(
            inputs_embeds=points,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=self.positions,
            **options,
        )

    def read(self, output: Any) -> Tensor:
        """See `Subject.read`."""
        logits: Tensor = output.logits
        # Models that know no logits_to_keep swallow it and give all.
        return logits if logits.shape[1] == len(self.targets) else logits[:, self.positions]


class EncoderDecoderSubject(Subject):
    """The encoder reads the prompt, the decoder the output so far. Points are the encoder's."""

    def __init__(self, network: Network, encoding: Encoding, targets: Sequence[int]) -> None:
        super().__init__(network, encoding.tokens, targets)
        start = network.model.config.decoder_start_token_id
        if start is None:
            start = network.model.generation_config.decoder_start_token_id
        self._before = torch.tensor([[start, *targets[:-1]]], device=network.device)

    @property
    def length(self) -> int:
        """See `Subject.length`."""
        return len(self.tokens) + len(self.targets)

    def call(self, points: Tensor, **options: Any) -> Any:
        """See `Subject.call`."""
        ones = torch.ones(points.shape[:2], dtype=torch.long, device=points.device)
        return self.network.model(
            inputs_embeds=points,
            attention_mask=ones,
            decoder_input_ids=self._before.expand(len(points), -1),
            use_cache=False,
            **options,
        )

    def read(self, output: Any) -> Tensor:
        """See `Subject.read`."""
        logits: Tensor = output.logits
        return logits


class EncoderSubject(Subject):
    """A bidirectional encoder with a head: a classifier, or a model that fills masks.

    Args:
        network: The model.
        encoding: What it reads.
        targets: A label, or a token id for every mask.
        masks: Positions of the masks; ``None`` for a classifier.

    Attributes:
        masks: The same as a tensor ``(n,)``, or ``None``.
    """

    def __init__(
        self,
        network: Network,
        encoding: Encoding,
        targets: Sequence[int],
        masks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(network, encoding.tokens, targets)
        self.masks = None if masks is None else torch.tensor(list(masks), device=network.device)
        self._extra = {
            name: torch.tensor([values], device=network.device)
            for name, values in encoding.extra.items()
        }

    def call(self, points: Tensor, **options: Any) -> Any:
        """See `Subject.call`."""
        ones = torch.ones(points.shape[:2], dtype=torch.long, device=points.device)
        extra = {name: value.expand(len(points), -1) for name, value in self._extra.items()}
        return self.network.model(inputs_embeds=points, attention_mask=ones, **extra, **options)

    def read(self, output: Any) -> Tensor:
        """See `Subject.read`."""
        logits: Tensor = output.logits
        return logits.unsqueeze(1) if self.masks is None else logits[:, self.masks]


class ModuleSubject(Subject):
    """Any module that makes logits of points: a classifier over embeddings or over features.

    Args:
        network: The module.
        tokens: What it reads.
        targets: The label.
        start: The input's own point ``(n_positions, d)``.
        baseline: The point of an absent input, ``(n_positions, d)``.
        forward: Logits ``(b, n_labels)`` of points ``(b, n_positions, d)``.
    """

    def __init__(
        self,
        network: Network,
        tokens: Sequence[InputToken],
        targets: Sequence[int],
        start: Tensor,
        baseline: Tensor,
        forward: Any,
    ) -> None:
        self.network = network
        self.tokens = tuple(tokens)
        self.targets = torch.tensor(list(targets), device=start.device)
        self._start, self.absent, self._forward = start, baseline, forward

    def start(self) -> Tensor:
        """See `Subject.start`."""
        return self._start

    def embed(self, ids: Sequence[int]) -> Tensor:
        """A plain module has no vocabulary to embed."""
        raise CapabilityError(
            f"{self.network.name} has no token embeddings: the baselines are 'zero' and numbers, "
            "not tokens.",
            needed="embeddings",
            backend=self.network.name,
        )

    def call(self, points: Tensor, **options: Any) -> Any:
        """See `Subject.call`."""
        return self._forward(points)

    def read(self, output: Any) -> Tensor:
        """See `Subject.read`."""
        logits: Tensor = output
        return logits.unsqueeze(1)
