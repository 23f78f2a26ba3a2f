"""The alignment's part of a forward pass: nodes of a batch, objective, and the file that keeps its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from exgra_adapter.clock import PhaseClock
from exgra_adapter.data.collator import TEXT_PREFIX
from exgra_adapter.distributed import gather_rows, gather_sizes
from exgra_adapter.models.nodes import DecoderTap, encode_packed
from exgra_adapter.models.packing import PackedTexts
from exgra_adapter.objectives import BatchViews, Objective, ObjectiveResult

ALIGNMENT_FILE = "alignment.safetensors"
_INNER = "alignment."


@dataclass
class BatchAlignment:
    """Reads the nodes of a batch off a forward pass and hands them to the objective.

    Images are read from the language model's input during the main pass; texts take one pass of their own, all packed
    together. With `scope="global"` the nodes of all processes make one graph, and every process computes the same loss.

    Args:
        objective: What is computed from the nodes.
        texts: The texts that are read alone, in the order of the collator: "answer", "extended".
        reuse_answer_states: Answer nodes from the main pass, where the answer stands behind image and question.
        scope: "global" or "local". Objectives on patches are local always.
        seed: With the number of the step it decides dropout inside the objective, the same on every process.
    """

    objective: Objective
    texts: tuple[Literal["answer", "extended"], ...]
    reuse_answer_states: bool = False
    scope: Literal["global", "local"] = "global"
    seed: int = 0
    tap: DecoderTap = field(default_factory=DecoderTap)

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        batch: dict[str, Tensor],
        step: int,
        clock: PhaseClock,
    ) -> ObjectiveResult:
        """Returns loss and metrics of a batch of n samples whose main pass the tap has just read.

        Args:
            model: The model, without wrappers.
            input_ids: `(n, t)` of the main pass.
            batch: What the collator made for the alignment, names with the prefix `text_`.
            step: Number of this forward pass.
            clock: Times "text" and "graph".
        """
        nodes = {"image": self.tap.image_nodes(input_ids, model.config.image_token_id)}
        extra: dict[str, Tensor] = {}
        needs = self.objective.needs
        if "patches" in needs:
            extra["patches"], extra["patch_mask"] = self.tap.image_states(input_ids, model.config.image_token_id)
        if self.reuse_answer_states:
            nodes["answer"] = self.tap.answer_nodes(batch[f"{TEXT_PREFIX}answers"])
        packed = PackedTexts.from_tensors(batch, TEXT_PREFIX)
        self.tap.clear()
        if packed is not None:
            with clock.phase("text"):
                samples = len(input_ids)
                hidden = encode_packed(model, packed)
                means = packed.means(hidden, samples * len(self.texts))
                nodes.update(zip(self.texts, means.split(samples), strict=True))
                if "tokens" in needs:
                    states, mask = packed.states(hidden, samples * len(self.texts))
                    extra["tokens"], extra["token_mask"] = states[:samples], mask[:samples]
        if "words" in needs:
            words = model.get_input_embeddings().weight.detach()
            extra["words"] = words.full_tensor() if isinstance(words, DTensor) else words
        with clock.phase("graph"):
            return self._align(nodes, batch[f"{TEXT_PREFIX}groups"], extra, step)

    def _align(self, nodes: dict[str, Tensor], groups: Tensor, extra: dict[str, Any], step: int) -> ObjectiveResult:
        if self.scope == "global" and self.objective.scope == "global":
            sizes = gather_sizes(groups.shape[1], groups.device)
            nodes = {name: gather_rows(rows, sizes) for name, rows in nodes.items()}
            groups = gather_rows(groups.T, sizes).T
        devices = [groups.device] if groups.device.type == "cuda" else []
        # Dropout must be the same on all processes, and leave their other random numbers alone.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed((self.seed * 1_000_003 + step) % 2**63)
            result: ObjectiveResult = self.objective(BatchViews(**nodes, groups=groups, **extra))
        return result


def save_alignment(state: dict[str, Tensor], folder: Path) -> None:
    """Writes the parameters of an objective, its `state_dict()`, into `folder`.

    Those of a matching objective are written under the names that `graphmatch.BarycenterAlignment` gives them.
    """
    state = {name.removeprefix(_INNER): value.detach().contiguous().cpu() for name, value in state.items()}
    save_file(state, Path(folder) / ALIGNMENT_FILE, metadata={"format": "pt"})


def load_alignment(objective: nn.Module, folder: Path) -> None:
    """Reads what `save_alignment` wrote.

    Args:
        objective: Receives the parameters, in place.
        folder: The folder.

    Raises:
        ValueError: The file is missing or was written for other sizes or another objective.
    """
    path = Path(folder) / ALIGNMENT_FILE
    if not path.is_file():
        raise ValueError(
            f"load_alignment: folder must hold {ALIGNMENT_FILE}; got {folder} without it. "
            "Train with an alignment objective."
        )
    prefix = _INNER if all(name.startswith(_INNER) for name in objective.state_dict()) else ""
    state = {prefix + name: value for name, value in load_file(path).items()}
    expected = {name: tuple(value.shape) for name, value in objective.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        name = next(name for name in sorted(expected | found) if expected.get(name) != found.get(name))
        raise ValueError(
            f"load_alignment: {path} must fit the model and the objective; got {name} of shape {found.get(name)} "
            f"instead of {expected.get(name)}. Use the alignment file that was saved with this model."
        )
    with torch.no_grad():
        objective.load_state_dict(state)
