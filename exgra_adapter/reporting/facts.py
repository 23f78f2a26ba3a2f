"""What a training run reports about itself beside its settings and its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

Settings = Mapping[str, Any]
"""`TrainingConfig.to_json()`: plain values by the name of the setting."""

History = Sequence[Mapping[str, float]]
"""One mapping per logged step: `step`, `epoch`, `loss`, `ar_loss`, `learning_rate`, `gradient_norm`, and where they are
known `alignment_loss`, `extended_text_loss`, `gap`, shares in [0, 1] (`matching_accuracy`, `retrieval`,
`zero_gradient_share`), `gradient_norm_<part>`, and of one optimizer step `seconds_<phase>`, `tokens_main` and
`tokens_text`."""


class Facts(TypedDict, total=False):
    """Facts about a run; each may be absent, and what is absent is left out of what is written.

    Attributes:
        samples: Samples trained on.
        skipped: Samples left out because they were bad.
        steps: Optimizer steps.
        seconds: Wall-clock seconds.
        parameters: Parameters of the model, the alignment's included.
        trainable: Those that were trained.
        world_size: Processes, each with one device.
        device: Name of the device.
        versions: Versions by package name.
        data_file: Name of the data file.
        data_sha256: Its SHA-256, hexadecimal.
        data_count: Its samples.
        datasets: Names of the data sets on the Hugging Face hub, `owner/name`.
        base_model: The model that training started from: a name on the hub, or a folder.
        license: Licence of the trained model as the hub spells it, for instance `cc-by-nc-4.0`; "unknown" is as good as
            absent.
        data_license: Licence of the data.
        peak_memory_bytes: Largest memory held on one device.
        prompt: One question exactly as it is put to the model, with `<image>` where the image stands.
    """

    samples: int
    skipped: int
    steps: int
    seconds: float
    parameters: int
    trainable: int
    world_size: int
    device: str
    versions: Mapping[str, str]
    data_file: str
    data_sha256: str
    data_count: int
    datasets: Sequence[str]
    base_model: str
    license: str
    data_license: str
    peak_memory_bytes: int
    prompt: str


def graph_nodes(settings: Settings, facts: Facts) -> int | None:
    """Returns how many nodes the alignment's graphs have: one per sample, over all ranks or on each of them.

    Example:
        >>> graph_nodes({"batch_size": 16, "graph_scope": "global"}, {"world_size": 4})
        64
    """
    batch = settings.get("batch_size")
    if not isinstance(batch, int):
        return None
    ranks = facts.get("world_size", 1) if settings.get("graph_scope", "local") == "global" else 1
    return batch * ranks


def has_graphs(settings: Settings) -> bool:
    """Says whether a run aligned graphs at all, that is, matched views of samples with each other.

    Example:
        >>> has_graphs({"objective": "barycenter", "alignment_weight": 1.0}), has_graphs({"objective": "none"})
        (True, False)
    """
    wanted = settings.get("objective", "barycenter") in ("barycenter", "pairwise")
    return wanted and bool(settings.get("alignment_weight"))
