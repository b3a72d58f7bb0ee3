# SPDX-License-Identifier: Apache-2.0
"""What captum and inseq say about the same token ids; scores of the prompt's tokens, ``(T, n)``."""

import warnings

import numpy as np
import torch


def captum_decoder(model, tokenizer, text, output, method, *, baseline=0, skip=(), **options):
    """Captum's `LLMGradientAttribution` of log-probabilities, with a layer method at the embedding.

    Tokens that are skipped get 0, as they are never changed.
    """
    from captum.attr import LLMGradientAttribution, TextTokenInput

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = TextTokenInput(text, tokenizer, baselines=baseline, skip_tokens=list(skip) or None)
        ids = tokenizer(text)["input_ids"]
        assert given.inp_tensor[0].tolist() == ids
        found = LLMGradientAttribution(
            method(model, model.get_input_embeddings()), tokenizer
        ).attribute(given, target=torch.tensor(output), **options)
    kept = [place for place, index in enumerate(ids) if tokenizer.decode([index]) not in skip]
    scores = np.zeros((len(output), len(ids)))
    scores[:, kept] = found.token_attr.detach().numpy()
    return scores


def captum_encoder(reading, method, absent=None, **options):
    """Captum's classic methods on embeddings of an encoder; raw, ``(T, n, d)``.

    Args:
        reading: An `oracles.Reading`: what the model reads, and its targets.
        method: `Saliency`, `InputXGradient`, `IntegratedGradients`, ...
        absent: The baseline ``(n, d)``.
        **options: For ``attribute``.
    """
    model = reading.model

    def forward(points, place):
        logits = model(inputs_embeds=points).logits
        return (logits if place is None else logits[:, place]).log_softmax(-1)

    if absent is not None:
        options["baselines"] = absent[None]
    found = [
        method(forward).attribute(
            reading.start()[None],
            target=target,
            additional_forward_args=(reading.masks[t] if reading.masks else None,),
            **options,
        )[0]
        for t, target in enumerate(reading.targets)
    ]
    return torch.stack(found).detach()


def inseq_decoder(model, tokenizer, text, output, method, **options):
    """Inseq's gradients of probabilities at the embedding, raw, ``(T, n, d)``."""
    import inseq

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = inseq.load_model(model, method, tokenizer=tokenizer, device="cpu")
        out = opened.attribute(
            text,
            text + tokenizer.decode(output),
            show_progress=False,
            pretty_progress=False,
            **options,
        ).sequence_attributions[0]
    ids = tokenizer(text)["input_ids"]
    assert [token.id for token in out.target] == [*ids, *output]
    return out.target_attributions[: len(ids)].transpose(0, 1)
