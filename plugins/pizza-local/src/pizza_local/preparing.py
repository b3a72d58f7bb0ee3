# SPDX-License-Identifier: Apache-2.0
"""From a model and a tokenizer to a `LocalModel`, with everything that may not fit checked."""

from __future__ import annotations

import logging
from typing import Any

from pizza.errors import CapabilityError, ConfigError
from pizza_local.chunks import Chunks
from pizza_local.encoding import Encoder
from pizza_local.kinds.base import Kind
from pizza_local.kinds.causal import CausalKind
from pizza_local.kinds.encoder_decoder import EncoderDecoderKind
from pizza_local.kinds.encoders import ClassifierKind, MaskedKind
from pizza_local.model import LocalModel
from pizza_local.subjects import Network, find_blocks

_log = logging.getLogger("pizza.local")

_KINDS: tuple[tuple[str, type[Kind]], ...] = (
    ("ForSequenceClassification", ClassifierKind),
    ("ForMaskedLM", MaskedKind),
    ("ForConditionalGeneration", EncoderDecoderKind),
    ("ForCausalLM", CausalKind),
    ("LMHeadModel", CausalKind),
)


def prepare(
    model: Any, tokenizer: Any, *, name: str, chat: bool | None, stacked: bool
) -> LocalModel:
    """Make a model ready.

    Raises:
        ConfigError: Model and tokenizer do not fit.
        CapabilityError: A kind of model that is not known.
    """
    config = getattr(model, "config", None)
    if config is None:
        raise CapabilityError(
            f"{type(model).__name__} is not a model of transformers. For a module of your own use "
            "LocalBackend.from_features or LocalBackend.from_embeddings.",
            needed="gradients",
            backend=type(model).__name__,
        )
    name = name or str(getattr(model, "name_or_path", "")) or type(model).__name__
    kind = _kind(model, name)
    network = Network(model=model, blocks=find_blocks(model), name=name, tokenizer=tokenizer)
    encoder = Encoder(
        tokenizer, chat=chat if kind in (CausalKind, EncoderDecoderKind) else False, who=name
    )
    _check_fit(network, tokenizer)
    if kind is ClassifierKind:
        _check_labels(config, name)
    if kind is ClassifierKind and getattr(config, "pad_token_id", None) is None:
        # Heads on decoders refuse every batch without one. No token has this id.
        config.pad_token_id = -1
    chunks = Chunks(network.device)
    return LocalModel(network, encoder, kind(network, encoder, chunks), chunks, stacked=stacked)


def _kind(model: Any, name: str) -> type[Kind]:
    for cls in type(model).__mro__:
        for ending, kind in _KINDS:
            if cls.__name__.endswith(ending):
                decodes = getattr(model.config, "is_encoder_decoder", False)
                # Some decoders are called conditional generators too.
                return CausalKind if kind is EncoderDecoderKind and not decodes else kind
    raise CapabilityError(
        f"{name} is a {type(model).__name__}, which is none of the kinds that can be explained: a "
        "causal language model, an encoder-decoder, a sequence classifier, a masked language "
        "model. For a module of your own use LocalBackend.from_embeddings.",
        needed="gradients",
        backend=name,
    )


def _check_labels(config: Any, name: str) -> None:
    """Refuse heads whose logits are no choice of one label.

    Raises:
        CapabilityError: A regression, or several labels at once.
    """
    several = getattr(config, "problem_type", None) == "multi_label_classification"
    if several or len(config.id2label) < 2:
        what = "gives several labels at once" if several else "is a regression with one output"
        raise CapabilityError(
            f"{name} {what}; classifiers that choose one of two or more labels can be explained. "
            "Wrap it in a module that returns such logits (LocalBackend.from_embeddings).",
            needed="classify",
            backend=name,
        )


def _check_fit(network: Network, tokenizer: Any) -> None:
    words = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    if not any(word not in special for word in words):
        # What transformers makes of a folder without a tokenizer.
        raise ConfigError(
            f"the tokenizer of {network.name} has no vocabulary: its files are missing "
            "(tokenizer.json). Save the tokenizer beside the model."
        )
    largest = max(words.values())
    if largest >= network.vocabulary:
        raise ConfigError(
            f"the tokenizer has ids up to {largest} and {network.name} embeds only "
            f"{network.vocabulary}: it is the tokenizer of another model. Load both from the same "
            "place, or resize the model's embeddings."
        )
    for which in ("eos_token_id", "bos_token_id"):
        of_model = getattr(network.model.config, which, None)
        of_tokenizer = getattr(tokenizer, which, None)
        several = of_model if isinstance(of_model, (list, tuple)) else [of_model]
        if of_model is not None and of_tokenizer is not None and of_tokenizer not in several:
            _log.warning(
                "%s is %s in the tokenizer and %s in %s: is it the tokenizer of another model?",
                which,
                of_tokenizer,
                of_model,
                network.name,
            )
