# SPDX-License-Identifier: Apache-2.0
"""Plain modules as models: classifiers over a feature vector, or over token embeddings."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pizza.capability import Capability
from pizza.errors import CapabilityError, ConfigError
from pizza_local.chunks import Chunks
from pizza_local.counts import Counts
from pizza_local.encoding import Encoder, Encoding, InputToken
from pizza_local.features import FeatureEncoder
from pizza_local.kinds.base import Job, Kind
from pizza_local.kinds.batches import scored
from pizza_local.kinds.encoders import ClassifierKind
from pizza_local.model import LocalModel
from pizza_local.scoring import Scored
from pizza_local.subjects import ModuleSubject, Network, Subject


def feature_model(
    module: nn.Module,
    vocabulary: Mapping[str, int] | Callable[[str], Sequence[tuple[int, int, int]]],
    labels: Sequence[str],
    n_features: int | None,
    name: str,
) -> LocalModel:
    """A classifier over a feature vector, made ready; see `LocalBackend.from_features`.

    A prompt's tokens are the occurrences of features in it. A point ``(n_occurrences, 1)`` says how
    much of each is there: 1 in the prompt, 0 where it is absent; the module sees the sums per
    feature. So scores of occurrences add up to those of their feature, and gradients agree with
    those of the feature vector.

    Raises:
        ConfigError: Vocabulary, labels and module do not fit.
    """
    known = _labels(labels)
    size = n_features
    if size is None:
        if not isinstance(vocabulary, Mapping):
            raise ConfigError(
                "n_features is missing: a function does not tell how long the feature vector is."
            )
        size = 1 + max(vocabulary.values(), default=-1)
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ConfigError(f"n_features is a whole number from 1 on, not {size!r}.")
    size = int(size)
    encoder = FeatureEncoder(vocabulary, size, who=name)
    network = FeatureNetwork(
        model=module, blocks=(), name=name, n_features=size, n_labels=len(known)
    )
    _try_out(module, network.empty(1), known, name)
    chunks = Chunks(network.device)
    kind = FeatureKind(network, encoder, chunks, known)
    return ModuleModel(network, encoder, kind, chunks, known)


def embedding_model(
    module: nn.Module, embedding: nn.Embedding, tokenizer: Any, labels: Sequence[str], name: str
) -> LocalModel:
    """A classifier over token embeddings, made ready; see `LocalBackend.from_embeddings`.

    Raises:
        ConfigError: Tokenizer, embedding and labels do not fit.
    """
    known = _labels(labels)
    encoder = Encoder(tokenizer, chat=False, who=name)
    both = Embedded(embedding, module)
    network = EmbeddingNetwork(model=both, blocks=(), name=name, tokenizer=tokenizer)
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= network.vocabulary:
        raise ConfigError(
            f"the tokenizer has ids up to {largest} and the embedding of {name} only "
            f"{network.vocabulary} rows: give the tokenizer and the embedding of one model."
        )
    chunks = Chunks(network.device)
    kind = EmbeddingKind(network, encoder, chunks, known)
    return ModuleModel(network, encoder, kind, chunks, known)


def _labels(labels: Sequence[str]) -> tuple[str, ...]:
    known = tuple(labels)
    if isinstance(labels, str) or len(known) < 2 or len(set(known)) < len(known):
        raise ConfigError(
            f"labels are two or more different names, in the order of the logits, not {labels!r}."
        )
    return known


def _try_out(module: nn.Module, points: Tensor, labels: Sequence[str], name: str) -> None:
    """Run a module once, so that what does not fit is said when it is opened."""
    with evaluating(module), torch.no_grad():
        try:
            logits = module(points)
        except RuntimeError as error:
            raise ConfigError(
                f"{name} cannot read features of shape {tuple(points.shape)}: {error}. If its "
                "feature vector is longer than the vocabulary, give n_features."
            ) from error
    check_logits(logits, len(points), labels, name)


def check_logits(logits: Any, n: int, labels: Sequence[str], name: str) -> Tensor:
    """What a module returned, if it is logits ``(n, n_labels)``.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(logits, Tensor) and tuple(logits.shape) == (n, len(labels)):
        return logits
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    raise ConfigError(
        f"{name} returned {got} for {n} inputs and {len(labels)} labels: it must return a tensor "
        f"of logits, {(n, len(labels))}. Wrap it in a module that does."
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while this is open; afterwards every part is as it was."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


# --- networks -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureNetwork(Network):
    """A module over feature vectors: it embeds nothing.

    Attributes:
        n_features: Length of the feature vector.
        n_labels: Number of logits.
    """

    n_features: int
    n_labels: int

    @property
    def embedding(self) -> Any:
        """Features have no embeddings.

        Raises:
            CapabilityError: Always.
        """
        raise CapabilityError(
            f"{self.name} reads features and has no token embeddings: its baselines are 'zero' and "
            "arrays, and methods that walk through word embeddings do not work on it.",
            needed="embeddings",
            backend=self.name,
        )

    @property
    def table(self) -> Tensor:
        """See `embedding`."""
        found: Tensor = self.embedding.weight
        return found

    @property
    def vocabulary(self) -> int:
        """Number of ids, of features or of labels: whichever are more."""
        return max(self.n_features, self.n_labels)

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        return self.empty(0).device

    def empty(self, n: int) -> Tensor:
        """Feature vectors of nothing, ``(n, n_features)``, as the module wants numbers."""
        floats = (p for p in self.model.parameters() if p.is_floating_point())
        like = next(floats, torch.empty(0))
        return like.detach().new_zeros((n, self.n_features))


class Embedded(nn.Module):
    """An embedding and what reads it, as one module: one state, one mode."""

    def __init__(self, embedding: nn.Embedding, module: nn.Module) -> None:
        super().__init__()
        self.embedding, self.module = embedding, module
        self.training = module.training

    def forward(self, points: Tensor) -> Any:
        """Logits of embeddings ``(b, n_tokens, d)``."""
        return self.module(points)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddingNetwork(Network):
    """An `Embedded` module."""

    @property
    def embedding(self) -> Any:
        """The module that embeds token ids."""
        return self.model.embedding


class EmbeddingSubject(Subject):
    """A classifier over embeddings, reading one prompt."""

    def __init__(
        self, network: Network, tokens: Sequence[InputToken], targets: Sequence[int], forward: Any
    ) -> None:
        super().__init__(network, tokens, targets)
        self._forward = forward

    def call(self, points: Tensor, **options: Any) -> Any:
        """See `Subject.call`."""
        return self._forward(points)

    def read(self, output: Any) -> Tensor:
        """See `Subject.read`."""
        logits: Tensor = output
        return logits.unsqueeze(1)


class FeatureSubject(ModuleSubject):
    """A classifier over features, reading one prompt."""

    @property
    def length(self) -> int:
        """See `Subject.length`: one vector, however few occurrences there are."""
        return max(1, len(self.tokens))


# --- kinds ----------------------------------------------------------------------------------------


class _ModuleKind(ClassifierKind):
    """A classifier whose labels are given, and whose inputs have any length.

    Args:
        network: The module.
        encoder: Prompts to ids.
        chunks: Sizes of batches.
        labels: Names of the labels, in the order of the logits.
    """

    def __init__(
        self, network: Network, encoder: Any, chunks: Chunks, labels: Sequence[str]
    ) -> None:
        super().__init__(network, encoder, chunks)
        self._given = tuple(labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the logits."""
        return self._given

    @property
    def limit(self) -> None:
        """Nothing is known of a limit."""
        return

    def _forward(self, points: Tensor) -> Tensor:
        """Logits ``(b, n_labels)`` of what the module reads."""
        found = self.network.model(points)
        return check_logits(found, len(points), self.labels, self.network.name)

    def _scored(
        self, jobs: Sequence[Job], top: int, counts: Counts, stop: threading.Event, width: int
    ) -> list[Scored]:
        return scored(
            jobs, self._logits, top=top, chunks=self.chunks, counts=counts, stop=stop, width=width
        )


class FeatureKind(_ModuleKind):
    """A classifier over feature vectors."""

    offers: ClassVar[frozenset[Capability]] = ClassifierKind.offers - {Capability.EMBEDDINGS}

    def score(
        self, jobs: Sequence[Job], top: int, counts: Counts, stop: threading.Event
    ) -> list[Scored]:
        """See `Kind.score`."""
        size = self._net.n_features * self._net.empty(0).element_size()
        return self._scored(jobs, top, counts, stop, 8 * size)

    def subject(self, encoding: Encoding, targets: Sequence[int]) -> FeatureSubject:
        """See `Kind.subject`."""
        index = torch.tensor(encoding.ids, dtype=torch.long, device=self.network.device)

        def forward(points: Tensor) -> Tensor:
            empty = self._net.empty(len(points))
            return self._forward(empty.index_add(1, index, points.squeeze(-1).to(empty)))

        start = self._net.empty(1).new_ones((len(encoding.ids), 1))
        return FeatureSubject(
            self.network, encoding.tokens, targets, start, torch.zeros_like(start), forward
        )

    def _logits(self, jobs: Sequence[Job]) -> list[Tensor]:
        counts = self._net.empty(len(jobs))
        for row, job in zip(counts, jobs, strict=True):
            index = torch.tensor(job.encoding.ids, dtype=torch.long, device=counts.device)
            row.index_add_(0, index, torch.ones(len(index)).to(row))
        return list(self._forward(counts).unsqueeze(1))

    @property
    def _net(self) -> FeatureNetwork:
        assert isinstance(self.network, FeatureNetwork)  # noqa: S101 - made by `feature_model`
        return self.network


class EmbeddingKind(_ModuleKind):
    """A classifier over token embeddings. Nothing is padded: the module has no mask."""

    def score(
        self, jobs: Sequence[Job], top: int, counts: Counts, stop: threading.Event
    ) -> list[Scored]:
        """See `Kind.score`."""
        width = 64 * self.network.table.shape[1] * self.network.table.element_size()
        return self._scored(jobs, top, counts, stop, width)

    def subject(self, encoding: Encoding, targets: Sequence[int]) -> EmbeddingSubject:
        """See `Kind.subject`."""
        return EmbeddingSubject(self.network, encoding.tokens, targets, self._forward)

    def _logits(self, jobs: Sequence[Job]) -> list[Tensor]:
        """Prompts of one length go together."""
        groups: dict[int, list[int]] = {}
        for place, job in enumerate(jobs):
            groups.setdefault(len(job.encoding.ids), []).append(place)
        found: dict[int, Tensor] = {}
        for places in groups.values():
            ids = torch.tensor(
                [jobs[place].encoding.ids for place in places], device=self.network.device
            )
            rows = self._forward(self.network.embedding(ids)).unsqueeze(1)
            found.update(zip(places, rows, strict=True))
        return [found[place] for place in range(len(jobs))]


class ModuleModel(LocalModel):
    """A `LocalModel` of a plain module.

    Args:
        network: The module.
        encoder: Prompts to ids.
        kind: How it is run.
        chunks: Sizes of batches.
        labels: Names of the labels.
    """

    def __init__(
        self, network: Network, encoder: Any, kind: Kind, chunks: Chunks, labels: Sequence[str]
    ) -> None:
        super().__init__(network, encoder, kind, chunks, stacked=False)
        self._labels = tuple(labels)

    def identity(self) -> str:
        """See `LocalModel.identity`; without a configuration, the module's build stands for it."""
        digest = hashlib.sha256(super().identity().encode())
        digest.update(repr((self._labels, str(self.network.model))).encode())
        for part in self.network.model.modules():
            code = getattr(type(part).forward, "__code__", None)
            if code is not None and not type(part).__module__.startswith("torch."):
                # Modules of one shape may compute different things.
                digest.update(code.co_code + repr(code.co_names).encode())
        return digest.hexdigest()[:32]
