# SPDX-License-Identifier: Apache-2.0
"""Tiny torch models with real tokenizers, made in milliseconds: the subjects of exact tests.

Weights are random and drawn wide, so that every layer matters and no gradient is nearly zero.
"""

import re
from functools import cache

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXT = [
    "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?",
    "The clock shows 9:47 PM. How many minutes until 10? The mug is blue and the hat is red.",
    "A man walked his dog in Lisbon, not in Rome: naïve café, 東京, and a smile 😀.",
    "this film was not terrible and the food was great but the service was slow",
]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHAT_TOKENS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@cache
def byte_tokenizer(chat=False, bos=False):
    """Byte-level BPE of 384 entries, as GPT-2 and Llama 3 have; encodes any text.

    Args:
        chat: With a chat template that writes a BOS token itself.
        bos: With a post-processor that puts a BOS token in front, as Llama has.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<unk>", *(CHAT_TOKENS if chat else [])]
    core.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=384,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=CHAT_TOKENS if chat else [],
    )
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


@cache
def word_tokenizer():
    """WordPiece with [CLS] and [SEP], as BERT has; lower-cases."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for text in TEXT for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*words, *letters, *("##" + letter for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*special, *pieces]))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, core.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        clean_up_tokenization_spaces=False,
    )


def _ready(model, dtype):
    return model.eval().to(dtype)


def gpt2(dtype=torch.float64, seed=0, **changes):
    """A GPT-2 of 3 layers, 4 heads, 32 dimensions."""
    settings = {
        "n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 128, "vocab_size": 384,
        "initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(seed)
    return _ready(
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings | changes)), dtype
    )


def llama(dtype=torch.float64, seed=0, **changes):
    """A Llama of 3 layers, 4 heads on 2 key-value heads, 32 dimensions."""
    return _ready(decoder("Llama", seed=seed, **changes), dtype)


def decoder(family, seed=0, **changes):
    """A decoder of another family that has Llama's shape: Llama, Mistral, Qwen2, Qwen3, Gemma."""
    settings = {
        "num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 384,
        "max_position_embeddings": 128, "initializer_range": 0.25,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**settings | changes)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def t5(dtype=torch.float64, seed=0, **changes):
    """An encoder-decoder of 2 + 2 layers."""
    settings = {
        "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "d_model": 32, "d_kv": 8,
        "d_ff": 64, "vocab_size": 384, "initializer_factor": 1.5, "decoder_start_token_id": 2,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(seed)
    return _ready(
        transformers.T5ForConditionalGeneration(transformers.T5Config(**settings | changes)), dtype
    )


def _bert(cls, dtype, seed, changes):
    settings = {
        "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "intermediate_size": 64, "vocab_size": len(word_tokenizer()),
        "max_position_embeddings": 128, "initializer_range": 0.25, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(seed)
    return _ready(cls(transformers.BertConfig(**settings | changes)), dtype)


def bert_classifier(dtype=torch.float64, seed=0, **changes):
    """A BERT that tells negative from neutral from positive."""
    labels = {"id2label": {0: "negative", 1: "neutral", 2: "positive"}, "num_labels": 3}
    return _bert(transformers.BertForSequenceClassification, dtype, seed, labels | changes)


def bert_mlm(dtype=torch.float64, seed=0, **changes):
    """A BERT that fills masks."""
    return _bert(transformers.BertForMaskedLM, dtype, seed, changes)
