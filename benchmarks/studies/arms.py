"""What the studies of learning compare: arms, named by their content so that studies share them, and sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.studies.corruption import Corruption
from benchmarks.studies.learning import Pretraining, sizes_of
from exgra_adapter.demo.results import DemoConfig

_DEFAULTS: dict[str, Any] = {
    "barycenter": "leave_one_out",
    "gradient": "imle",
    "neighbours": 5,
    "texts": "both",
    "data_fraction": 1.0,
}
_SAMPLES_PER_STEP = 32


@dataclass(frozen=True)
class Size:
    """How much every arm trains.

    Attributes:
        demo: Pictures, steps and rates.
        pretraining: What the model of every arm has learned before.
        width: Of the tiny model, in multiples of the demo's.
    """

    demo: DemoConfig
    pretraining: Pretraining | None = None
    width: int = 1

    def content(self) -> dict[str, Any]:
        """What decides what an arm learns, as plain JSON values."""
        known = None if self.pretraining is None else asdict(self.pretraining)
        return {**sizes_of(self.demo), "pretraining": known, "width": self.width}


SIZES = {
    "small": Size(
        DemoConfig(
            train_pictures=256,
            test_pictures=160,
            caption_steps=20,
            instruct_steps=48,
            vqa_steps=40,
            instruct_rate=2.5e-3,
            vqa_rate=1e-3,
        ),
        Pretraining(500, 240),
    ),
    "large": Size(
        DemoConfig(train_pictures=2000, test_pictures=320, caption_steps=120, instruct_steps=1000, vqa_steps=500),
        Pretraining(2000, 1500),
        width=3,
    ),
}


@dataclass(frozen=True)
class Arm:
    """One way of training stage 2.

    Attributes:
        options: Settings of `TrainingConfig` that differ from the defaults.
        corruption: How the extended answers are made worse; None leaves them as they are.
        share: How much of them.
    """

    options: dict[str, Any] = field(default_factory=dict)
    corruption: Corruption | None = None
    share: float = 0.0

    def content(self) -> dict[str, Any]:
        """What decides the result, without what only repeats a default."""
        own: dict[str, Any] = {"options": {k: v for k, v in self.options.items() if _DEFAULTS.get(k) != v}}
        if self.corruption is not None and self.share > 0:
            own |= {"corruption": self.corruption, "share": self.share}
        return own

    def address(self, size: Size, seed: int, device: str) -> str:
        """Names the result of this arm: equal content, equal name."""
        content = {
            "arm": self.content(),
            "sizes": size.content(),
            "seed": seed,
            "device": device,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def aligned(**options: Any) -> Arm:
    """The alignment with barycenters, with options."""
    return Arm({"objective": "barycenter", **options})


def graph_size(nodes: int) -> Arm:
    """Alignment with graphs of so many nodes, and as many samples in each optimizer step whatever their size."""
    return aligned(batch_size=nodes, gradient_accumulation=_SAMPLES_PER_STEP // nodes)


ALIGNED = aligned()
AR = Arm({"objective": "none"})
DROPOUT = (0.25, 0.5, 0.75, 1.0)
SHARES = (0.5, 1.0)
NEIGHBOURS = (1, 3, 5, 10)
GRAPH_SIZES = (8, 16, 32)
MARGIN = 0.3
FRACTIONS = (0.1, 0.4, 1.0)
OBJECTIVES = {
    "AR only": "none",
    "AR + extended text": "extended_text",
    "InfoNCE": "infonce",
    "alignment": "barycenter",
}


def corrupted(kind: Corruption, share: float) -> Arm:
    """The alignment on worse extended answers."""
    return replace(ALIGNED, corruption=kind, share=share)


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


STUDIES: dict[str, dict[str, Arm]] = {
    "caption_quality": {
        "as written": ALIGNED,
        **{f"dropout {_percent(share)}": corrupted("dropout", share) for share in DROPOUT},
        **{f"swap {_percent(share)}": corrupted("swap", share) for share in SHARES},
        **{f"hallucination {_percent(share)}": corrupted("hallucination", share) for share in SHARES},
        "without extended answers": aligned(texts="answer"),
        "AR only": AR,
    },
    "neighbours": {
        **{f"k = {k}": aligned(neighbours=k) for k in NEIGHBOURS},
        **{f"N = {nodes}": graph_size(nodes) for nodes in GRAPH_SIZES},
    },
    "barycenter": {
        "leave-one-out, IMLE": ALIGNED,
        "leave-one-out, no noise": aligned(gradient="blackbox"),
        "leave-one-out, margin": aligned(gradient="blackbox", margin=MARGIN),
        "leave-one-out, IMLE and margin": aligned(margin=MARGIN),
        "mean, IMLE": aligned(barycenter="mean"),
        "mean, no noise": aligned(barycenter="mean", gradient="blackbox"),
        "mean, margin": aligned(barycenter="mean", gradient="blackbox", margin=MARGIN),
        "mean, IMLE and margin": aligned(barycenter="mean", margin=MARGIN),
        "released recipe": aligned(legacy=True),
        "AR only": AR,
    },
    "data_efficiency": {
        f"{name}, {_percent(fraction)}": Arm({"objective": objective, "data_fraction": fraction})
        for name, objective in OBJECTIVES.items()
        for fraction in FRACTIONS
    },
}


def distinct_arms(studies: Sequence[str]) -> list[Arm]:
    """The arms of some studies, each once, in their order."""
    found: dict[str, Arm] = {}
    for study in studies:
        for arm in STUDIES[study].values():
            found.setdefault(json.dumps(arm.content(), sort_keys=True), arm)
    return list(found.values())
