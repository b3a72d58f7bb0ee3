# SPDX-License-Identifier: Apache-2.0
"""What attributions should be, straight from the formulas: plain torch, one forward a row.

Nothing of pizza_local is used. Every output token has a forward pass of its own over exactly what
comes before it, every gradient is autograd's through the model of transformers, paths are walked
step by step. Slow, short and hard to get wrong.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

KINDS = ("gpt2", "llama", "t5", "bert-classifier", "bert-mlm", "bag-of-words")


# --- models as functions of points ---------------------------------------------------------------


class Reading:
    """Logits at each output position, as a function of what enters a layer.

    Args:
        model: A model of transformers.
        ids: Token ids of the prompt.
        targets: Token ids of the output (or a label; or a filling for every mask).
        mask: Id of the mask token, for models that fill masks.
    """

    def __init__(self, model, ids, targets, mask=None):
        self.model, self.prompt, self.targets = model, list(ids), list(targets)
        self.masks = [place for place, index in enumerate(ids) if index == mask]
        name = type(model).__name__
        self.decodes = name.endswith(("CausalLM", "LMHeadModel"))
        self.ids = self.prompt + (self.targets[:-1] if self.decodes else [])

    def start(self):
        return self.model.get_input_embeddings()(torch.tensor(self.ids)).detach()

    def blocks(self):
        inner = self.model
        for name in ("transformer", "encoder", "bert", "model"):
            inner = getattr(inner, name, inner)
        for name in ("h", "layers", "block", "encoder"):
            inner = getattr(inner, name, inner)
        return list(getattr(inner, "layer", inner))

    def logits(self, t, point, layer=0):
        """Logits ``(vocabulary,)`` at output position t of a point ``(n, d)``."""
        if layer == 0:
            return self._run(t, point)

        def put(_, __, output):
            inside = (point[: len(self.prompt) + t] if self.decodes else point)[None]
            return (inside, *output[1:]) if isinstance(output, tuple) else inside

        handle = self.blocks()[layer - 1].register_forward_hook(put)
        try:
            return self._run(t, self.start())
        finally:
            handle.remove()

    def states(self, point, layer):
        """What leaves a block when ``point`` is embedded, ``(n, d)``."""
        if layer == 0:
            return point
        seen = []

        def look(_, __, output):
            seen.append((output[0] if isinstance(output, tuple) else output)[0].detach().clone())

        handle = self.blocks()[layer - 1].register_forward_hook(look)
        with torch.no_grad():
            self._run(len(self.targets) - 1, point)
        handle.remove()
        return seen[0]

    def _run(self, t, point):
        if self.decodes:
            before = point[: len(self.prompt) + t]
            return self.model(inputs_embeds=before[None], use_cache=False).logits[0, -1]
        if self.model.config.is_encoder_decoder:
            begun = [self.model.config.decoder_start_token_id, *self.targets[:t]]
            return self.model(
                inputs_embeds=point[None], decoder_input_ids=torch.tensor([begun]), use_cache=False
            ).logits[0, -1]
        logits = self.model(inputs_embeds=point[None]).logits[0]
        return logits[self.masks[t]] if self.masks else logits


class Bag:
    """Counts of words, and a module that makes logits of them.

    A point is one number for each occurrence of a known word, 1 when it is there.
    """

    decodes = False

    def __init__(self, module, features, n_features, label):
        self.model, self.features, self.n_features = module, list(features), n_features
        self.targets, self.ids = [label], list(features)

    def start(self):
        weight = next(self.model.parameters())
        return torch.ones((len(self.features), 1), dtype=weight.dtype)

    def logits(self, t, point, layer=0):
        counts = torch.zeros(self.n_features, dtype=point.dtype)
        for place, feature in enumerate(self.features):
            counts = counts + torch.eye(self.n_features, dtype=point.dtype)[feature] * point[place]
        return self.model(counts[None])[0]

    def states(self, point, layer):
        return point

    def blocks(self):
        return []


# --- what is explained ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """One output, or why one and not another.

    Rows of `rows` are the whole output and its tokens. Points hold the prompt's positions, then
    those of the output, then those of the other output.
    """

    reading: object
    versus: object = None
    window: tuple = None
    inside: tuple = ()
    """For every token of the prompt: is it part of a unit?"""

    @property
    def n_prompt(self):
        return len(self.inside)

    def start(self, layer=0):
        return self._joined(lambda reading: reading.states(reading.start(), layer))

    def baseline(self, token="zero", layer=0):
        """Tokens of units replaced by zeros, by a vector or by a token; all others as they are."""

        def absent(reading):
            point = reading.start().clone()
            for place, used in enumerate(self.inside):
                if used and isinstance(token, int):
                    point[place] = reading.model.get_input_embeddings().weight[token].detach()
                elif used:
                    point[place] = 0.0 if isinstance(token, str) else token
            return reading.states(point, layer)

        return self._joined(absent)

    def _joined(self, make):
        one = make(self.reading)
        if self.versus is None:
            return one
        return torch.cat([one, make(self.versus)[self.n_prompt :]])

    def _other(self, point):
        return torch.cat([point[: self.n_prompt], point[len(self.reading.ids) :]])

    def rows(self, point, function="logprob", layer=0):
        """Values ``(1 + n_outputs,)`` of a point ``(n, d)``, differentiable."""
        own = point[: len(self.reading.ids)]
        each = values(self.reading, own, function, layer)
        start, stop = self.window or (0, len(each))
        whole = whole_of(function, each[start:stop])
        if self.versus is not None:
            other = values(self.versus, self._other(point), function, layer)
            whole = whole - whole_of(function, other)
        return torch.cat([whole[None], each])

    def jacobian(self, point, function="logprob", layer=0):
        """Gradients ``(1 + n_outputs, n, d)`` of the rows at a point."""
        leaf = point.detach().clone().requires_grad_(True)
        rows = self.rows(leaf, function, layer)
        return torch.stack([torch.autograd.grad(row, leaf, retain_graph=True)[0] for row in rows])


def values(reading, point, function, layer):
    found = []
    for t, target in enumerate(reading.targets):
        logs = torch.log_softmax(reading.logits(t, point, layer), -1)
        if function == "logprob":
            found.append(logs[target])
        elif function == "prob":
            found.append(logs[target].exp())
        elif function == "logit":
            found.append(reading.logits(t, point, layer)[target])
        elif function == "entropy":
            found.append(-(logs.exp() * logs).sum())
        elif function == "kl":
            clean = torch.log_softmax(reading.logits(t, reading.start()), -1).detach()
            found.append(-(clean.exp() * (clean - logs)).sum())
    return torch.stack(found)


def whole_of(function, each):
    """Probabilities multiply; everything else adds up."""
    return each.prod() if function == "prob" else each.sum()


# --- methods: scores of tokens, (1 + n_outputs, n) -----------------------------------------------


def saliency(explained, norm="l2", function="logprob", layer=0):
    gradients = explained.jacobian(explained.start(layer), function, layer)
    return reduced(gradients, norm)


def reduced(gradients, norm):
    if norm == "l1":
        return gradients.abs().sum(-1)
    if norm == "l2":
        return (gradients**2).sum(-1).sqrt()
    return gradients.abs().max(-1).values if norm == "max" else gradients.sum(-1)


def input_x_gradient(explained, function="logprob", layer=0):
    start = explained.start(layer)
    return (explained.jacobian(start, function, layer) * start).sum(-1)


def integrated_gradients(
    explained, steps=20, rule="gauss-legendre", baseline="zero", function="logprob", layer=0
):
    start, absent = explained.start(layer), explained.baseline(baseline, layer)
    total = 0.0
    for alpha, weight in quadrature(rule, steps):
        point = absent + alpha * (start - absent)
        total = total + weight * explained.jacobian(point, function, layer)
    return (total * (start - absent)).sum(-1)


def quadrature(rule, n):
    """Nodes and weights on [0, 1]."""
    if rule == "gauss-legendre":
        # Golub and Welsch 1969: eigenvalues of the Jacobi matrix of the Legendre polynomials.
        k = np.arange(1, n)
        beta = k / np.sqrt(4.0 * k * k - 1.0)
        nodes, vectors = np.linalg.eigh(np.diag(beta, 1) + np.diag(beta, -1))
        return [(float(x + 1) / 2, float(v**2)) for x, v in zip(nodes, vectors[0], strict=True)]
    if rule == "trapezoid":
        h = 1.0 / (n - 1)
        return [(i * h, h / 2 if i in (0, n - 1) else h) for i in range(n)]
    shift = {"riemann-left": 0.0, "riemann-middle": 0.5, "riemann-right": 1.0}[rule]
    return [((i + shift) / n, 1.0 / n) for i in range(n)]


# --- from tokens to units ------------------------------------------------------------------------


def to_units(scores, token_spans, unit_spans, how="sum"):
    """Scores ``(r, n_units)`` of scores ``(r, n)``, character by character.

    Args:
        scores: Scores of tokens.
        token_spans: For the prompt's tokens their (start, end) in the text; empty for tokens that
            stand for no text.
        unit_spans: (start, end) of the units.
        how: ``"sum"``, ``"mean"``, ``"norm"`` or ``"max"``.
    """
    result = np.zeros((len(scores), len(unit_spans)))
    for u in range(len(unit_spans)):
        parts, sizes = [], []
        for n, (start, end) in enumerate(token_spans):
            owners = [
                [i for i, (a, b) in enumerate(unit_spans) if a <= char < b]
                for char in range(start, end)
            ]
            owned = [char for char in owners if char]
            own = sum(char == [u] for char in owned)
            if own:
                share = own / len(owned)
                parts.append(share * np.asarray(scores[:, n]))
                sizes.append(share)
        if not parts:
            continue
        stack = np.stack(parts)
        if how == "sum":
            result[:, u] = stack.sum(0)
        elif how == "mean":
            result[:, u] = stack.sum(0) / sum(sizes)
        elif how == "norm":
            result[:, u] = np.sqrt((stack**2).sum(0))
        else:
            largest = np.abs(stack).argmax(0)
            result[:, u] = stack[largest, np.arange(stack.shape[1])]
    return result


def terms(explained, layer=0):
    """The largest sum of what an activation x gradient is the sum of, without the signs.

    In front of a norm these sums are 0 but for rounding: scaling its input changes nothing. Then
    rounding is to be held against the size of the terms.
    """
    start = explained.start(layer)
    return float((explained.jacobian(start, "logprob", layer) * start).abs().sum(-1).max())


def apart(found, expected, scale=None):
    """Largest difference, relative to the largest number that is expected (or to ``scale``)."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.array_equal(np.isnan(found), np.isnan(expected)), "NaN in other places"
    scale = np.nanmax(np.abs(expected)) if scale is None else scale
    return float(np.nanmax(np.abs(found - expected)) / max(scale, 1e-300))


# --- methods that draw points, walk token by token, or look at attention -------------------------


def gradient_shap(explained, samples=5, seed=0, baseline="zero", function="logprob"):
    """One baseline, no noise; numbers drawn as the product draws them."""
    generator = torch.Generator().manual_seed(seed)
    torch.randint(1, (samples,), generator=generator)
    alphas = torch.rand(samples, generator=generator, dtype=torch.float64)
    start, absent = explained.start(), explained.baseline(baseline)
    total = 0.0
    for alpha in alphas.tolist():
        total = total + explained.jacobian(absent + alpha * (start - absent), function)
    return (total / samples * (start - absent)).sum(-1)


def smooth_grad(explained, samples=4, stdev=0.1, seed=0, function="logprob"):
    """The L2 norm of the mean gradient; noise in units of the units' root mean square."""
    generator = torch.Generator().manual_seed(seed)
    start = explained.start()
    used = torch.zeros(len(start), dtype=torch.bool)
    used[: explained.n_prompt] = torch.tensor(explained.inside)
    size = stdev * (start[used].double() ** 2).mean().sqrt()
    total = 0.0
    for _ in range(samples):
        noise = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        noise[~used] = 0.0
        total = total + explained.jacobian(start + (size * noise).to(start), function)
    return reduced(total / samples, "l2")


def sequential_integrated_gradients(explained, steps=3, baseline="zero", function="logprob"):
    start, absent = explained.start(), explained.baseline(baseline)
    rows = torch.zeros((1 + len(explained.reading.targets), len(start)), dtype=start.dtype)
    for place in range(explained.n_prompt):
        if not explained.inside[place]:
            continue
        move = start[place] - absent[place]
        for alpha, weight in quadrature("gauss-legendre", steps):
            point = start.clone()
            point[place] = absent[place] + alpha * move
            slope = explained.jacobian(point, function)[:, place]
            rows[:, place] += weight * (slope * move).sum(-1)
    return rows


def discretized_integrated_gradients(explained, words, steps=4, neighbours=5, function="logprob"):
    """Greedy paths to zero through the embeddings of ``words`` (token ids)."""
    start, absent = explained.start(), explained.baseline("zero")
    table = explained.reading.model.get_input_embeddings().weight.detach()
    path = [start.clone() for _ in range(steps)]
    path[0] = absent
    for place in range(explained.n_prompt):
        if not explained.inside[place]:
            continue
        goal, current = absent[place], start[place]
        anchor, anchor_id = current, explained.reading.ids[place]
        visited = [anchor_id]
        for step in range(steps - 2, 0, -1):
            others = [word for word in words if word != anchor_id]
            others.sort(key=lambda word: float((table[word] - anchor).norm()))
            allowed = [word for word in others[:neighbours] if word not in visited]
            costs = [_least_change(table[word], anchor, goal, steps) for word in allowed]
            anchor_id = allowed[int(np.argmin(costs))]
            anchor = table[anchor_id]
            visited.append(anchor_id)
            current = _monotone(anchor, current, goal, steps)
            path[step][place] = current
    rows = torch.zeros((1 + len(explained.reading.targets), len(start)), dtype=start.dtype)
    for here, there in pairwise(path):
        rows += (explained.jacobian(here, function) * (there - here)).sum(-1)
    return rows


def _monotone(anchor, current, goal, steps):
    inside = ((goal <= anchor) & (anchor <= current)) | ((current <= anchor) & (anchor <= goal))
    return torch.where(inside, anchor, current - (current - goal) / steps)


def _least_change(anchor, current, goal, steps):
    return float((anchor - _monotone(anchor, current, goal, steps)).norm())


def deep_lift(explained):
    """The rescale rule through Linear, Tanh, Linear, by hand; of the logit."""
    bag = explained.reading
    first, _, second = bag.model
    rows = []
    for reading in (bag, explained.versus):
        if reading is None:
            continue
        x = sum(torch.eye(bag.n_features, dtype=torch.float64)[f] for f in bag.features)
        x = x.to(first.weight.dtype)
        before, after = first(torch.zeros_like(x)), first(x)
        slope = (after.tanh() - before.tanh()) / (after - before)
        multipliers = (second.weight[reading.targets[0]] * slope) @ first.weight
        rows.append(multipliers[torch.tensor(bag.features)])
    whole = rows[0] - (rows[1] if len(rows) > 1 else 0.0)
    return torch.stack([whole, rows[0]])


def attentions(explained):
    """Weights ``(n_outputs, layers, heads, n)`` from the positions that predict, and the readers.

    transformers' own weights, from its plain implementation of attention.
    """
    reading = explained.reading
    model = reading.model
    used = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        inputs = {"input_ids": torch.tensor([reading.ids])}
        if model.config.is_encoder_decoder:
            begun = [model.config.decoder_start_token_id, *reading.targets[:-1]]
            inputs["decoder_input_ids"] = torch.tensor([begun])
        with torch.no_grad():
            return model(**inputs, output_attentions=True)
    finally:
        model.set_attn_implementation(used)


def attention(explained):
    """Mean over layers and heads; the whole output's row is the mean of its tokens'."""
    reading, out = explained.reading, attentions(explained)
    weights = out.cross_attentions if reading.model.config.is_encoder_decoder else out.attentions
    mean = torch.stack([layer[0].mean(0) for layer in weights]).mean(0)
    return _with_mean(mean[_predicting(reading)])


def attention_rollout(explained):
    """Products of ``rownorm(mean over heads + identity)``; not for encoder-decoders."""
    rollout = None
    for layer in attentions(explained).attentions:
        mean = layer[0].mean(0) + torch.eye(layer.shape[-1], dtype=layer.dtype)
        mean = mean / mean.sum(-1, keepdim=True)
        rollout = mean if rollout is None else mean @ rollout
    return _with_mean(rollout[_predicting(explained.reading)])


def _predicting(reading):
    if reading.decodes:
        first = len(reading.prompt) - 1
        return list(range(first, first + len(reading.targets)))
    if reading.model.config.is_encoder_decoder:
        return list(range(len(reading.targets)))
    return reading.masks or [0]


def _with_mean(each):
    return torch.cat([each.mean(0, keepdim=True), each])


def value_zeroing(explained):
    """Each block again from its clean input with one value vector zero; mean over layers."""
    reading = explained.reading
    with torch.no_grad():
        clean = [reading.states(reading.start(), k) for k in range(len(reading.blocks()) + 1)]
        layers = []
        for layer in range(1, len(clean)):
            reference = _leaving(reading, clean, layer, None)
            changes = []
            for place in range(len(reading.ids)):
                changed = _leaving(reading, clean, layer, place)
                changes.append(
                    1 - torch.cosine_similarity(reference.double(), changed.double(), dim=-1)
                )
            rows = torch.stack(changes, dim=1)[_predicting(reading)]
            layers.append(rows / rows.sum(-1, keepdim=True))
    return _with_mean(torch.stack(layers).mean(0))


def _leaving(reading, clean, layer, zeroed):
    """What leaves a block (the last one: after the final norm) of its clean input."""
    block = reading.blocks()[layer - 1]
    seen = []

    def enter(_, args, kwargs):
        if layer == 1:
            # Positions are added to the embeddings before the first block.
            return args, kwargs
        if args:
            return (clean[layer - 1][None].clone(), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": clean[layer - 1][None].clone()}

    def zero(_, __, output):
        output = output.clone()
        width = output.shape[-1] // 3 if hasattr(block, "ln_1") else output.shape[-1]
        if zeroed is not None:
            output[:, zeroed, -width:] = 0
        return output

    def look(_, __, output):
        seen.append((output[0] if isinstance(output, tuple) else output)[0].clone())

    values = next(
        module
        for name, module in block.named_modules()
        if name.endswith(("c_attn", "v_proj", "value"))
    )
    last = layer == len(clean) - 1
    base = reading.model.base_model
    norm = getattr(base, "ln_f", getattr(base, "norm", None)) if last else None
    handles = [
        block.register_forward_pre_hook(enter, with_kwargs=True),
        values.register_forward_hook(zero),
        (norm or block).register_forward_hook(look),
    ]
    try:
        reading.model(inputs_embeds=reading.start()[None])
    finally:
        for handle in handles:
            handle.remove()
    return seen[0]


def atman(explained, factor=0.1, members=()):
    """Rises of the cross-entropy per unit, ``(1 + n_outputs, n_units)``; additive suppression.

    Args:
        explained: Of a model whose only attention is among its input's tokens.
        factor: What is left of the attention.
        members: Tokens of each unit.
    """
    reading = explained.reading
    clean = _masked_values(reading, (), factor)
    each = torch.stack([clean - _masked_values(reading, own, factor) for own in members], dim=1)
    return torch.cat([each.sum(0, keepdim=True), each])


def _masked_values(reading, suppressed, factor):
    """Log-probabilities with ``log(factor)`` added to what is suppressed in all attention."""
    n = len(reading.ids)
    dtype = reading.start().dtype
    mask = torch.zeros((n, n), dtype=dtype)
    mask[:, list(suppressed)] += float(np.log(factor))
    if reading.decodes:
        mask = mask.masked_fill(torch.ones(n, n).triu(1).bool(), torch.finfo(dtype).min)
    used = reading.model.config._attn_implementation
    reading.model.set_attn_implementation("eager")
    with torch.no_grad():
        logits = reading.model(
            inputs_embeds=reading.start()[None], attention_mask=mask[None, None]
        ).logits[0]
    reading.model.set_attn_implementation(used)
    logits = logits[_predicting(reading)] if reading.decodes or reading.masks else logits[None]
    return logits.log_softmax(-1)[torch.arange(len(logits)), torch.tensor(reading.targets)]
