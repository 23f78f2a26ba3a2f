"""How much memory a GPU needs for a training run: an estimate from sizes, before anything is loaded.

`python -m exgra_adapter.reporting.memory` prints the table of the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from exgra_adapter.console import say
from exgra_adapter.reporting.markdown import gibibytes, table

Precision = Literal["fp32", "bf16", "fp16"]
Sharding = Literal["none", "gradients", "full"]
Optimizer = Literal["adamw", "adamw_8bit", "sgd"]
Quantization = Literal["none", "8bit", "4bit"]

_COMPUTE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "sgd": 0}
# 4 bits, an 8-bit scale per 64 weights and a float32 scale per 256 of those; 8 bits.
_QUANTIZED_BYTES = {"4bit": 0.5 + 1 / 64 + 4 / (64 * 256), "8bit": 1.0}
_MASTER_BYTES = 4


def memory_estimate(
    parameters: int,
    trainable: int,
    *,
    batch: int,
    tokens: int,
    text_tokens: int = 0,
    hidden: int = 4096,
    layers: int = 32,
    feed_forward: int = 11008,
    vocabulary: int = 32004,
    world_size: int = 1,
    precision: Precision = "bf16",
    sharding: Sharding = "none",
    optimizer: Optimizer = "adamw",
    gradient_checkpointing: bool = True,
    quantization: Quantization = "none",
    frozen_precision: Precision | None = None,
) -> dict[str, float]:
    """Estimates the bytes that one GPU holds while it trains a language model with a frozen vision tower.

    With P parameters, T of them trainable, R ranks, c bytes of the precision (4, 2, 2), n = batch x tokens positions of
    the main pass, m = batch x text_tokens of the alignment's text pass, width h, L layers, feed-forward width f,
    vocabulary V:

    - weights: 4 T + c (P - T); trainable weights are float32 and cast for computing, frozen ones are kept in
      `frozen_precision`. Quantized linear layers of the decoder, L (4 h^2 + 3 h f) weights, take 0.516 or 1 bytes each.
      Divided by R where `sharding` is full.
    - gradients: 4 T, divided by R where they are sharded; twice 4 T for plain data parallelism
      (its buckets are copies).
    - optimizer: 8 T (two float32 moments), 2 T in 8 bits, or 0; divided by R where `sharding` is not none.
    - copies: weights as they are computed with. Not sharded: c T while autocast keeps its casts (0 in fp32). Fully
      sharded: two layers (the present and the prefetched one), embedding and head, in the precision.
    - activations: what waits for the backward pass. One position of one layer takes 34 h + 8 f bytes in 16 bits
      (40 h + 16 f in fp32) with an attention that stores no matrix of scores (`sdpa`, Flash). Checkpointing keeps 4 h
      of them.
    - logits: n V (c + 12): logits, their float32 copy, log-probabilities, and the gradient.
    - recomputed: with checkpointing, one layer's activations of the longer of the two passes.
    - total: their sum, but of logits and recomputed activations only the larger where there is no text pass, because
      the logits are gone when layers are recomputed.

    What is missing: the CUDA context (about 0.5 GiB), fragmentation, the vision tower's passing activations, the graphs
    (megabytes), and the solver, which works in the host's memory. Leave a tenth of the card free.

    Args:
        parameters: All parameters.
        trainable: Those with gradients.
        batch: Samples per GPU and forward pass.
        tokens: Positions per sample of the main pass, image patches and padding included.
        text_tokens: Positions per sample of the text pass, both texts together; 0 without alignment.
        hidden: Width of the language model.
        layers: Its layers.
        feed_forward: Width of its feed-forward layers (gate, up, down).
        vocabulary: Its tokens.
        world_size: GPUs.
        precision: Arithmetic of the model.
        sharding: none: data parallelism, or a single GPU; gradients: gradients and optimizer are sharded (ZeRO-2);
            full: weights too (FSDP full shard, ZeRO-3).
        optimizer: What it keeps for every trainable parameter.
        gradient_checkpointing: Recompute every layer in the backward pass.
        quantization: Storage of the decoder's frozen linear layers.
        frozen_precision: Storage of the other frozen weights; None stands for the precision.

    Returns:
        Bytes by name: weights, gradients, optimizer, copies, activations, logits, recomputed, total.

    Raises:
        ValueError: A count is negative, there is no GPU, or more parameters are trainable than there are.

    Source: the method of Korthikanti et al., "Reducing activation recomputation in large transformer models"
    (arXiv:2205.05198), section 4, for the layers of LLaMA; Rajbhandari et al., "ZeRO" (arXiv:1910.02054), section 3.

    Example:
        >>> estimate = memory_estimate(7 * 10**9, 7 * 10**9, batch=16, tokens=1024, world_size=4, sharding="full")
        >>> {name: round(value / 2**30) for name, value in estimate.items() if name in ("weights", "optimizer")}
        {'weights': 7, 'optimizer': 13}
    """
    counts = {"parameters": parameters, "trainable": trainable, "batch": batch, "tokens": tokens}
    for name, value in (counts | {"text_tokens": text_tokens}).items():
        if value < 0:
            raise ValueError(f"memory_estimate: {name} must be 0 or more; got {value}. Give a count.")
    if world_size < 1:
        raise ValueError(f"memory_estimate: world_size must be 1 or more; got {world_size}. Count the GPUs.")
    if trainable > parameters:
        raise ValueError(
            f"memory_estimate: trainable must be at most parameters = {parameters}; got {trainable}. Count again."
        )
    compute = _COMPUTE_BYTES[precision]
    layer = 4 * hidden**2 + 3 * hidden * feed_forward
    stored = _COMPUTE_BYTES[frozen_precision or precision]
    frozen = float(stored * (parameters - trainable))
    if quantization != "none":
        frozen -= layers * layer * (stored - _QUANTIZED_BYTES[quantization])
    per_position = 40 * hidden + 16 * feed_forward if precision == "fp32" else 34 * hidden + 8 * feed_forward
    main, texts = batch * tokens, batch * text_tokens
    kept = 4 * hidden if gradient_checkpointing else per_position
    values = {
        "weights": (_MASTER_BYTES * trainable + frozen) / (world_size if sharding == "full" else 1),
        "gradients": _MASTER_BYTES * trainable * (2 if sharding == "none" and world_size > 1 else 1)
        / (1 if sharding == "none" else world_size),
        "optimizer": _OPTIMIZER_BYTES[optimizer] * trainable / (1 if sharding == "none" else world_size),
        "copies": float(
            compute * (2 * layer + 2 * vocabulary * hidden)
            if sharding == "full" and world_size > 1
            else (0 if precision == "fp32" else compute * trainable)
        ),
        "activations": float(layers * kept * (main + texts)),
        "logits": float(main * vocabulary * (compute + 12)),
        "recomputed": float(per_position * max(main, texts)) if gradient_checkpointing else 0.0,
    }  # fmt: skip
    passing = ("logits", "recomputed")
    at_the_end = sum(values[name] for name in passing) if texts else max(values[name] for name in passing)
    values["total"] = sum(value for name, value in values.items() if name not in passing) + at_the_end
    return values


@dataclass(frozen=True)
class Run:
    """One row of the table: LLaVA-7B on one kind of card.

    Attributes:
        name: What is trained, and how.
        card: Memory of a card in GiB.
        trainable: Parameters with gradients.
        added: Parameters beside those of the model: adapters, message passing.
        options: The other arguments of `memory_estimate`.
    """

    name: str
    card: int
    trainable: int
    added: int
    options: dict[str, Any]


_HIDDEN, _LAYERS, _FEED_FORWARD, _VOCABULARY = 4096, 32, 11008, 32004
LANGUAGE_MODEL = (
    2 * _VOCABULARY * _HIDDEN + _LAYERS * (4 * _HIDDEN**2 + 3 * _HIDDEN * _FEED_FORWARD + 2 * _HIDDEN) + _HIDDEN
)
"""Parameters of LLaMA-7B with 32004 tokens."""
PROJECTOR = (1024 + 1) * _HIDDEN + (_HIDDEN + 1) * _HIDDEN
"""Parameters of the two-layer projector from CLIP ViT-L/14."""
VISION = 303_179_776
"""Parameters of CLIP ViT-L/14 at 224 pixels."""
MESSAGE_PASSING = 2 * (2 * _HIDDEN**2 + _HIDDEN)
"""Parameters of the alignment's two graph convolutions."""
_ADAPTER_RANK = 64
ADAPTERS = _ADAPTER_RANK * _LAYERS * (4 * 2 * _HIDDEN + 3 * (_HIDDEN + _FEED_FORWARD))
"""Parameters of LoRA of rank 64 on all linear layers of the decoder."""

_MODEL = LANGUAGE_MODEL + PROJECTOR + VISION
_ALL = LANGUAGE_MODEL + PROJECTOR
_KEPT = ("weights", "gradients", "optimizer", "copies", "activations")
_TOKENS, _TEXT_TOKENS = 1024, 512
# Without adapters, frozen weights are loaded like trained ones.
_FLOAT32 = {"frozen_precision": "fp32"}
_FULL = {"sharding": "full", "text_tokens": _TEXT_TOKENS, **_FLOAT32}
_ALIGNED = _ALL + MESSAGE_PASSING
_LORA = ADAPTERS + PROJECTOR + MESSAGE_PASSING
_RUNS = (
    Run("stage 1, projector", 80, PROJECTOR, 0, {"batch": 16, **_FLOAT32}),
    Run("stage 1, projector", 80, PROJECTOR, 0, {"batch": 16, "world_size": 4, **_FLOAT32}),
    Run("stage 2, all, no alignment", 80, _ALL, 0, {"batch": 16, "sharding": "full", "world_size": 4, **_FLOAT32}),
    Run("stage 2, all", 80, _ALIGNED, MESSAGE_PASSING, {"batch": 16, "world_size": 4, **_FULL}),
    Run("stage 2, all", 40, _ALIGNED, MESSAGE_PASSING, {"batch": 8, "world_size": 8, **_FULL}),
    Run("stage 2, all", 80, _ALIGNED, MESSAGE_PASSING, {"batch": 1, "text_tokens": _TEXT_TOKENS, **_FLOAT32}),
    Run("stage 2, LoRA", 80, _LORA, _LORA - PROJECTOR, {"batch": 16, "text_tokens": _TEXT_TOKENS}),
    Run("stage 2, LoRA", 40, _LORA, _LORA - PROJECTOR, {"batch": 8, "text_tokens": _TEXT_TOKENS}),
    Run("stage 2, QLoRA", 24, _LORA, _LORA - PROJECTOR,
        {"batch": 4, "text_tokens": _TEXT_TOKENS, "quantization": "4bit"}),
)  # fmt: skip


def format_memory_table() -> str:
    """Formats the estimates for LLaVA-7B as a Markdown table, in GiB per GPU."""
    head = ["LLaVA-7B, GiB per GPU", "GPUs", "batch per GPU", "weights", "gradients", "optimizer", "copies",
            "activations", "logits, recomputed", "together"]  # fmt: skip
    body = []
    for run in _RUNS:
        values = memory_estimate(_MODEL + run.added, run.trainable, tokens=_TOKENS, **run.options)
        passing = values["total"] - sum(values[name] for name in _KEPT)
        fits = values["total"] <= 0.9 * run.card * 2**30
        body.append([
            run.name, f"{run.options.get('world_size', 1)} x {run.card} GiB", str(run.options["batch"]),
            *(gibibytes(values[name]) for name in _KEPT), gibibytes(passing),
            f"{gibibytes(values['total'])}{'' if fits else ' (too much)'}",
        ])  # fmt: skip
    return table(head, body)


if __name__ == "__main__":
    say(format_memory_table())
