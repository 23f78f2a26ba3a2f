"""The oracle of matching layers: any kind of problem, any solver."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphmatch import matching_relaxation  # noqa: F401 (defines an operator)
from graphmatch.gradients.base import Oracle, Reliability, Sampled, Solved, Tensors, Upstream
from graphmatch.matching_kinds import KINDS
from graphmatch.matching_ops import REPORT_SIZE
from graphmatch.matching_projection import without_mean, without_offsets, without_padding
from graphmatch.noise import Noise
from graphmatch.result import paid_pairs_of, relative_gap


@dataclass
class SampleCertificates:
    """What is known about each noisy problem of a call; all None where there was none.

    Attributes:
        objective: (..., b) float64.
        lower_bound: (..., b) float64.
        status: (..., b) int64, a `Status` each.
    """

    objective: Tensor | None = None
    lower_bound: Tensor | None = None
    status: Tensor | None = None

    @property
    def gap(self) -> Tensor | None:
        """Relative gaps (..., b), as in `MatchResult`."""
        if self.objective is None or self.lower_bound is None:
            return None
        return relative_gap(self.objective, self.lower_bound)


@dataclass(eq=False)
class MatchingOracle(Oracle):
    """argmin over the matchings of given graphs.

    Args:
        kind: "linear", "lawler" or "dense".
        solver: Its number, see `matching_ops.number_of`.
        unmatched_cost: As in the problem classes.
        tensors: edges1, edges2, sizes, keys (b,) and instances (b,) of the noise; None where there is none.
        targets: Filled by the backward pass, unless it is compiled.
    """

    kind: str
    solver: int
    unmatched_cost: float | None
    tensors: Upstream
    memory: Tensor | None = None
    targets: SampleCertificates = field(default_factory=SampleCertificates)
    report_size = REPORT_SIZE

    def with_tensors(self, tensors: Upstream) -> MatchingOracle:
        """Returns the same oracle with other tensors."""
        return MatchingOracle(self.kind, self.solver, self.unmatched_cost, tensors, self.memory, self.targets)

    def solve(self, costs: Tensors, steps: Upstream | None = None, state: Tensors = ()) -> Solved:
        """Returns the solutions for costs + steps."""
        outputs = torch.ops.graphmatch.matching_solve(
            list(costs),
            [None] * len(costs) if steps is None else list(steps),
            list(self.tensors),
            list(state),
            self.kind,
            self.unmatched_cost,
            self.solver,
        )
        count = len(costs)
        report = tuple(outputs[count : count + REPORT_SIZE])
        if steps is not None:
            _, objective, bound, status, *_ = report
            self._note(objective[None, None], bound[None, None], status[None, None])
        return Solved(tuple(outputs[:count]), tuple(outputs[count + REPORT_SIZE :]), report, report[1])

    def sample(
        self,
        costs: Tensors,
        noise: Noise,
        steps: Upstream | None = None,
        signs: tuple[float, ...] = (0.0,),
        state: Tensors = (),
        keep: bool = False,
        reliability: Reliability | None = None,
    ) -> Sampled:
        """Returns the mean solutions for costs - e + sign * steps; kept solutions are assignments."""
        limit = Reliability() if reliability is None else reliability
        outputs = torch.ops.graphmatch.matching_sample(
            list(costs),
            [None] * len(costs) if steps is None else list(steps),
            list(self.tensors),
            list(state),
            list(signs),
            *_options(noise),
            limit.open_gap,
            limit.weigh,
            keep,
            self.kind,
            self.unmatched_cost,
            self.solver,
        )
        count = len(costs)
        means = tuple(tuple(each[variant] for each in outputs[:count]) for variant in range(len(signs)))
        rest = outputs[count:]
        kept, rest = (tuple(rest[:1]), rest[1:]) if keep else ((), rest)
        report = tuple(rest[:REPORT_SIZE])
        if steps is not None:
            self._note(*report[-4:-1])
        return Sampled(means, kept, tuple(rest[REPORT_SIZE:]), report, report[-4:-2])

    def products(self, costs: Tensors, kept: Tensors, upstream: Upstream) -> Tensor:
        """Returns <upstream, y> of each kept assignment, (S, b)."""
        assignment = kept[0][0]
        total = torch.zeros(assignment.shape[:2], dtype=costs[0].dtype, device=assignment.device)
        if upstream[0] is not None and assignment.shape[2] > 0 and costs[0].shape[2] > 0:
            paid = upstream[0].expand(len(assignment), *upstream[0].shape)
            paid = paid.gather(3, assignment.clamp(min=0)[..., None])[..., 0]
            total = total + torch.where(assignment >= 0, paid, 0).sum(2)
        if self.kind == "lawler" and upstream[1] is not None:
            total = total + self._pair_products(assignment, upstream[1], costs[0].shape[2])
        return total

    def _pair_products(self, assignment: Tensor, upstream: Tensor, nodes: int) -> Tensor:
        """Returns sum_ef upstream[e, f] [e is mapped onto f], (S, b)."""
        edges1, edges2, sizes = self.tensors[:3]
        if edges1 is None or edges2 is None or 0 in upstream.shape or nodes == 0:
            return torch.zeros(assignment.shape[:2], dtype=upstream.dtype, device=upstream.device)
        samples, batch, _ = assignment.shape
        if sizes is not None:  # padding may hold anything
            real = (
                torch.arange(e.shape[1], device=e.device) < sizes[:, n, None] for e, n in ((edges1, 2), (edges2, 3))
            )
            left, right = real
            upstream = torch.where(left[:, :, None] & right[:, None, :], upstream, 0)
            edges1, edges2 = torch.where(left[..., None], edges1, 0), torch.where(right[..., None], edges2, 0)
        # Right edges that join the same nodes share the first one's column.
        offered = edges2[..., 0] * nodes + edges2[..., 1]
        places = torch.arange(offered.shape[1], device=offered.device).expand_as(offered)
        none = offered.shape[1]
        first = offered.new_full((batch, nodes * nodes), none)
        first = first.scatter_reduce(1, offered, places, "amin", include_self=True)
        column = first.gather(1, offered)
        shared = torch.zeros_like(torch.nn.functional.pad(upstream, (0, 1)))
        shared = shared.scatter_add(2, column[:, None, :].expand_as(upstream), upstream)
        image = assignment.gather(2, edges1.flatten(1).expand(samples, -1, -1)).unflatten(2, (-1, 2))
        wanted = torch.where((image >= 0).all(-1), image[..., 0] * nodes + image[..., 1], 0)
        paid = first.expand(samples, -1, -1).gather(2, wanted)
        paid = torch.where((image >= 0).all(-1), paid, none)
        return shared.expand(samples, *shared.shape).gather(3, paid[..., None])[..., 0].sum(2)

    def solutions_of(self, costs: Tensors, kept: Tensors, sample: int) -> Tensors:
        """Returns the solutions of one sample."""
        kind = KINDS[self.kind]
        return kind.solutions(kept[0][0, sample], kind.unchecked(costs, self.tensors, self.unmatched_cost))

    def completed(self, costs: Tensors, matching: Tensor) -> Tensors:
        """Returns the solutions of linear and Lawler problems whose matching (b, n1, n2) is given."""
        matching = matching.to(costs[0].dtype)
        if self.kind == "linear":
            return (matching,)
        edges1, edges2, sizes = self.tensors[:3]
        if edges1 is None or edges2 is None or 0 in matching.shape:
            return matching, torch.zeros_like(costs[1])
        assignment = torch.where((matching > 0).any(2), matching.argmax(2), -1)
        return matching, paid_pairs_of(assignment, costs[1], edges1, edges2, sizes, matching.shape[2])

    def objective(self, costs: Tensors, solutions: Tensors) -> Tensor:
        """Returns the objective of complete solutions of linear and Lawler problems, (b,)."""
        total = super().objective(costs, solutions)
        if self.unmatched_cost is None:
            return total
        sizes = self.tensors[2]
        nodes = costs[0].shape[1] if sizes is None else sizes[:, 0]
        return total + self.unmatched_cost * (nodes - solutions[0].sum((1, 2)))

    def relaxed_gradients(self, costs: Tensors, solutions: Tensors, upstream: Upstream, temperature: float) -> Tensors:
        """Returns the gradients in the costs through a soft matching; see `matching_relaxation`."""
        return tuple(
            torch.ops.graphmatch.matching_relaxed(
                list(costs),
                solutions[0],
                list(self.tensors),
                list(upstream),
                self.kind,
                self.unmatched_cost,
                temperature,
            )
        )

    def balanced(self, costs: Tensors, gradients: Upstream) -> Upstream:
        """Returns gradients whose rows and columns sum to zero where all nodes must be matched."""
        first, *others = gradients
        if first is None or self.unmatched_cost is not None:
            return gradients
        extent = KINDS[self.kind].extent(0, self.tensors[2])
        return (without_offsets(first, costs[0], extent), *others)

    def centred(self, costs: Tensors, gradients: Upstream) -> Upstream:
        """Returns gradients without the offsets that no matching depends on; padding becomes zero.

        Row and column offsets of the first tensor where all nodes must be matched; the mean of quadratic costs, on
        which nothing but the number of paid pairs depends. Flow and distance keep theirs.
        """
        kind, sizes = KINDS[self.kind], self.tensors[2]
        centred: list[Tensor | None] = []
        for place, gradient in enumerate(gradients):
            if gradient is None:
                centred.append(None)
                continue
            extent = kind.extent(place, sizes)
            if place == 0 and self.unmatched_cost is None:
                centred.append(without_offsets(gradient, costs[0], extent))
            elif place == 1 and self.kind == "lawler":
                centred.append(without_mean(gradient, extent))
            else:
                centred.append(without_padding(gradient, extent))
        return tuple(centred)

    def scores(self, costs: Tensors, noise: Noise, weights: Tensor) -> Upstream:
        """Returns sum_k weights[k] nu'(Z_k) for each cost tensor, None where it has no noise."""
        sums = torch.ops.graphmatch.matching_scores(
            list(costs), list(self.tensors), weights, *_options(noise), self.kind
        )
        return (*sums, *[None] * (len(costs) - len(sums)))

    def _note(self, objective: Tensor, lower_bound: Tensor, status: Tensor) -> None:
        if not torch.compiler.is_compiling():
            self.targets.objective, self.targets.lower_bound, self.targets.status = objective, lower_bound, status


def _options(noise: Noise) -> tuple[int, float, str, str, bool, int]:
    return noise.samples, noise.scale, noise.kind, noise.coupling, noise.everywhere, noise.seed
