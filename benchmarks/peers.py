"""Other solvers behind one face. A peer that is not installed is left out of the suites by name, not failed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment, quadratic_assignment

from benchmarks.cases import DenseInstance, Instance

LapSolver = Callable[[np.ndarray], np.ndarray]


def installed(package: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(package) is not None


def build_pylibmgm(instance: Instance, graphs: tuple[int, int] = (0, 1)) -> Any:
    """Returns the model that pylibmgm solves: it wants one Python call per assignment and per pair of assignments.

    A pair of assignments may come from several pairs of edges; pylibmgm takes each once, so their costs are summed. It
    knows partial matchings only: where all nodes must be matched, each match earns more than leaving it out can save.
    """
    mgm = importlib.import_module("pylibmgm")
    n1, n2 = instance.unary_costs.shape
    reward = 1.0 + 2.0 * _largest_influence(instance) if instance.complete else 0.0
    start, end = (instance.edges1[:, None, side] * n2 + instance.edges2[None, :, side] for side in (0, 1))
    codes = np.minimum(start, end) * (n1 * n2) + np.maximum(start, end)
    pairs, place = np.unique(codes.ravel(), return_inverse=True)
    costs = np.bincount(place.ravel(), instance.quadratic_costs.ravel())
    first, second = np.divmod(pairs, n1 * n2)
    model = mgm.GmModel(mgm.Graph(graphs[0], n1), mgm.Graph(graphs[1], n2), n1 * n2, len(pairs))
    for (node1, node2), cost in np.ndenumerate(instance.unary_costs):
        model.add_assignment(node1, node2, cost - reward)
    for pair in zip(first.tolist(), second.tolist(), costs.tolist(), strict=True):
        model.add_edge(*pair)
    return model


def _largest_influence(instance: Instance) -> float:
    """The most that one node of graph 1 and the edges at it can cost or save."""
    degrees = np.bincount(instance.edges1.ravel(), minlength=len(instance.unary_costs))
    return float(np.abs(instance.unary_costs).max() + degrees.max() * np.abs(instance.quadratic_costs).max())


def solve_pylibmgm(model: Any) -> np.ndarray:
    """Returns the assignment (n1,) that pylibmgm finds with its default options in one thread, -1 = unmatched."""
    mgm = importlib.import_module("pylibmgm")
    mgm.omp_set_num_threads(1)
    return np.asarray(mgm.QAPSolver(model).run().labeling(), dtype=np.int64)


def scipy_lap(costs: np.ndarray) -> np.ndarray:
    """Returns assignments (b, n) of square costs (b, n, n), one call of SciPy per matrix."""
    return np.stack([linear_sum_assignment(matrix)[1] for matrix in costs])


def lapx_lap(costs: np.ndarray) -> np.ndarray:
    """Returns assignments (b, n) of square costs (b, n, n), one batched call of lapx in one thread."""
    lap = importlib.import_module("lap")
    _, rows, columns = lap.lapjvx_batch(costs, n_threads=1)
    assignment = np.empty(costs.shape[:2], dtype=np.int64)
    np.put_along_axis(assignment, np.stack(rows), np.stack(columns), axis=1)
    return assignment


def lapjv_lap(costs: np.ndarray) -> np.ndarray:
    """Returns assignments (b, n) of square costs (b, n, n), one call of lapjv per matrix in the type of the costs."""
    lapjv = importlib.import_module("lapjv").lapjv
    doubles = costs.dtype == np.float64
    return np.stack([lapjv(matrix, force_doubles=doubles)[0] for matrix in costs])


def lapjv_single_lap(costs: np.ndarray) -> np.ndarray:
    """The same with lapjv's default, which rounds costs of any type to float32 first."""
    lapjv = importlib.import_module("lapjv").lapjv
    return np.stack([lapjv(matrix)[0] for matrix in costs])


def pot_lap(costs: np.ndarray) -> np.ndarray:
    """Returns assignments (b, n) of square costs (b, n, n): POT's exact transport between uniform weights."""
    emd = importlib.import_module("ot").emd
    weights = np.full(costs.shape[1], 1 / costs.shape[1])
    return np.stack([emd(weights, weights, matrix).argmax(1) for matrix in costs.astype(np.float64, copy=False)])


LAP_PEERS: dict[str, LapSolver] = {
    "scipy": scipy_lap,
    "lapx": lapx_lap,
    "lapjv": lapjv_lap,
    "lapjv-single": lapjv_single_lap,
    "POT": pot_lap,
}
# Names to import, where they differ from those of the peers.
LAP_PACKAGES = {"lapx": "lap", "lapjv-single": "lapjv", "POT": "ot"}

DenseSolver = Callable[[DenseInstance], np.ndarray]


def _scipy_qap(method: str, starts: int) -> DenseSolver:
    """Returns SciPy's solver as users call it: the best of several seeds where there is more than one start."""

    def solve(instance: DenseInstance) -> np.ndarray:
        answers = []
        for seed in range(starts):
            options: dict[str, Any] = {"rng": seed}
            if method == "faq" and starts > 1:
                options["P0"] = "randomized"
            answers.append(quadratic_assignment(instance.flow, instance.distance, method=method, options=options))
        return np.asarray(min(answers, key=lambda answer: answer.fun).col_ind)

    return solve


def _pygmtools(name: str) -> DenseSolver:
    """Returns a solver of pygmtools on the matrix of all n^4 affinities, none of them negative."""

    def solve(instance: DenseInstance) -> np.ndarray:
        pygm, torch = importlib.import_module("pygmtools"), importlib.import_module("torch")
        flow, distance = (torch.from_numpy(matrix).float() for matrix in (instance.flow, instance.distance))
        nodes = instance.nodes
        # Its index of the pair (i, k) is k n + i.
        affinity = -torch.kron(distance, flow)
        affinity = (affinity + affinity.T) / 2
        fits = torch.kron(1 - torch.eye(nodes), 1 - torch.eye(nodes))
        affinity = affinity - affinity.min() * fits
        matching = pygm.hungarian(getattr(pygm, name)(affinity, nodes, nodes, backend="pytorch"), backend="pytorch")
        return matching.argmax(1).numpy()

    return solve


def pot_gromov(instance: DenseInstance) -> np.ndarray:
    """Returns the permutation nearest to POT's Gromov-Wasserstein plan between flows and negative distances.

    With square loss and uniform weights, what the plan pays is the quadratic cost, up to a factor and a constant.
    """
    plan = importlib.import_module("ot").gromov.gromov_wasserstein(instance.flow, -instance.distance)
    return linear_sum_assignment(-plan)[1]


DENSE_PEERS: dict[str, DenseSolver] = {
    "scipy FAQ": _scipy_qap("faq", 1),
    "scipy FAQ x 10": _scipy_qap("faq", 10),
    "scipy 2opt": _scipy_qap("2opt", 1),
    "POT Gromov-Wasserstein": pot_gromov,
    **{f"pygmtools {name}": _pygmtools(name) for name in ("rrwm", "ipfp", "sm")},
}
# Names to import.
DENSE_PACKAGES = {name: name.split()[0].replace("POT", "ot") for name in DENSE_PEERS}
