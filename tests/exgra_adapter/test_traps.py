"""Traps of the released recipe that no other file of tests is about, and that each of the fourteen has a test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import graphmatch as gm
from exgra_adapter.alignment import BatchAlignment
from exgra_adapter.config import TrainingConfig
from exgra_adapter.objectives import BatchViews, Objective, build_objective
from exgra_adapter.training import AlignmentTrainer, train

TESTS = Path(__file__).parent.parent
DIM = 16


def views(samples: int = 12) -> BatchViews:
    generator = torch.Generator().manual_seed(0)
    return BatchViews(*torch.randn(3, samples, DIM, generator=generator))


def matching(legacy: bool) -> Objective:
    objective = build_objective("barycenter", DIM, neighbours=3, legacy=legacy)
    assert objective is not None
    return objective


def test_every_trap_has_a_test():
    texts = [path.read_text(encoding="utf-8") for path in TESTS.glob("**/*.py")]
    found = {int(number) for text in texts for number in re.findall(r'"""Trap (\d+):', text)}
    assert found == set(range(1, 15))


def test_nodes_hear_the_neighbours_that_they_chose():
    """Trap 6: a node that nobody chose receives messages all the same, from its own nearest neighbours."""
    torch.manual_seed(0)
    nodes = torch.randn(8, DIM)
    nodes[0] += 100  # nobody's neighbour
    nodes.requires_grad_()
    edges = gm.knn_graph(nodes, k=2).edges
    assert 0 not in edges[:, 1]
    passing = gm.MessagePassing(DIM, dropout=0.0)
    (gradient,) = torch.autograd.grad(passing(nodes, edges)[0].sum(), nodes)
    heard = gradient.abs().sum(1) > 0
    assert heard[edges[edges[:, 0] == 0, 1]].all()
    (backwards,) = torch.autograd.grad(passing(nodes, edges.flip(-1))[0].sum(), nodes)
    assert (backwards[1:] == 0).all(), "against the direction of its edges it hears nobody"


@pytest.mark.parametrize("legacy", [False, True])
def test_graphs_have_edges_of_their_own(legacy: bool):
    """Trap 7: one list of edges on both graphs would make the true matching consistent with all of them."""
    objective = matching(legacy)
    objective(views())
    alignment: Any = objective.alignment
    problem = (alignment.released if legacy else alignment.layer).result.problem
    assert torch.equal(problem.edges1, problem.edges2) is legacy


def test_a_step_reads_no_number_and_prints_nothing(small_data, tmp_path, capfd, monkeypatch):
    """Trap 9: a loss that is read as a number in every step makes the host wait for the device."""
    read: list[str] = []
    align, item, inside = BatchAlignment.__call__, torch.Tensor.item, [False]

    def watched_align(self: Any, *arguments: Any) -> Any:
        inside[0] = True
        try:
            return align(self, *arguments)
        finally:
            inside[0] = False

    def watched_item(self: torch.Tensor) -> Any:
        if inside[0]:
            read.append(str(self.shape))
        return item(self)

    monkeypatch.setattr(BatchAlignment, "__call__", watched_align)
    monkeypatch.setattr(torch.Tensor, "item", watched_item)
    config = TrainingConfig(
        "stage2", small_data.data, small_data.images, tmp_path / "run", batch_size=4, max_steps=2, neighbours=2
    )
    train(config, console_progress=False)
    assert read == []
    assert capfd.readouterr().out == ""


def test_a_model_in_training_generates(small_data, tmp_path, monkeypatch):
    """Trap 9: the forward pass of training stays that of the model, which can be asked at any step."""
    answers: list[torch.Tensor] = []
    step = AlignmentTrainer.training_step

    def asking_step(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any) -> Any:
        loss = step(self, model, dict(inputs), *arguments)
        question = {name: inputs[name][:1] for name in ("input_ids", "attention_mask", "pixel_values")}
        answers.append(model.generate(**question, max_new_tokens=2, do_sample=False))
        return loss

    monkeypatch.setattr(AlignmentTrainer, "training_step", asking_step)
    config = TrainingConfig(
        "stage2", small_data.data, small_data.images, tmp_path / "run", batch_size=4, max_steps=1, neighbours=2
    )
    train(config, console_progress=False)
    assert len(answers) == 1
    assert answers[0].shape[0] == 1


def test_neighbours_need_no_compiled_extension():
    """Trap 12: nearest neighbours come from torch alone, in single precision."""
    code = (
        "import sys; sys.modules['torch_cluster'] = sys.modules['pyg_lib'] = None\n"
        "import torch, graphmatch as gm\n"
        "with torch.autocast('cpu', torch.bfloat16):\n"
        "    edges = gm.knn_graph(1000 + torch.arange(6.)[:, None] / 64, k=1).edges\n"
        "print(edges[:, 1].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "[1, 0, 1, 2, 3, 4]", done.stderr
