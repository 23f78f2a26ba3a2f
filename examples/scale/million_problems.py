"""A million graph matching problems on all cores of one machine or of a cluster, by Ray Data.

    pip install "graphmatch[scale]"
    python examples/scale/million_problems.py --problems 1000000 --workers 8 --output runs/million

Every problem follows from its number alone, so any worker makes the same one. A batch of problems is one call of
`gm.solve` and one parquet file, which appears when it is complete; the same command goes on after a kill and solves
only what is missing. On a cluster, OUTPUT must be a folder that all machines see.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import special

import graphmatch as gm

try:
    import pyarrow as pa
    import pyarrow.dataset as pads
    import pyarrow.parquet as pq
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    raise SystemExit(
        f'million_problems: {missing.name} must be installed. Install it with `pip install "graphmatch[scale]"`.'
    ) from None

DIMENSION, NEIGHBOURS = 16, 5
"""Features of a node, and edges that leave it."""

# Workers share the cores out among themselves, so each has one thread. They inherit this where Ray is started here.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# The smallest store is about 75 MiB: rows of two numbers pass through it, and no costs.
OBJECT_STORE_BYTES = 100 * 2**20
# A task of Ray solves several batches, since starting one takes a while; progress moves by tasks, files by batches.
_TASKS_PER_WORKER, _MOST_TASKS = 32, 10_000
_SETTINGS = "settings.json"


def draw(first: int, count: int, numbers: int, seed: int) -> np.ndarray:
    """Returns uniform numbers (count, numbers) in (0, 1) of the problems first, first + 1, ...

    Philox is counter-based: each problem has its own stretch of one stream, so it does not matter which problems are
    drawn together.
    """
    # A counter gives four numbers, and every problem begins with a new one.
    counters = -(-numbers // 4)
    stream = np.random.Philox(key=seed).advance(first * counters)
    raw = stream.random_raw(count * counters * 4).reshape(count, -1)[:, :numbers]
    return ((raw >> np.uint64(12)) + 0.5) * 2.0**-52


def make_problems(first: int, count: int, nodes: int, noise: float, seed: int = 0) -> gm.LawlerProblem:
    """Makes the problems first, first + 1, ...: two noisy views of clustered points, each with its own graph.

    Replace this function to solve problems of your own: what a worker needs is their numbers.
    """
    clusters, size = max(2, nodes // 4), nodes * DIMENSION
    uniform = draw(first, count, clusters * DIMENSION + nodes + 2 * size, seed)
    parts = np.split(uniform, np.cumsum([clusters * DIMENSION, nodes, size]), axis=1)
    centres = special.ndtri(parts[0]).reshape(count, clusters, DIMENSION)
    members = (parts[1] * clusters).astype(np.int64)
    spread, change = (special.ndtri(part).reshape(count, nodes, DIMENSION) for part in parts[2:])
    points = np.take_along_axis(centres, members[..., None], axis=1) + 0.5 * spread
    graphs = [gm.knn_graph(torch.from_numpy(view).float(), NEIGHBOURS) for view in (points, points + noise * change)]
    unary = -gm.cosine_affinity(graphs[0].nodes, graphs[1].nodes)
    edges = [gm.edge_features(graph.nodes, graph.edges) for graph in graphs]
    return gm.LawlerProblem(unary, -0.5 * gm.cosine_affinity(*edges), graphs[0].edges, graphs[1].edges)


def solve_numbers(first: int, count: int, nodes: int, noise: float) -> pa.Table:
    """Solves the problems first, first + 1, ...; returns a row for each, and the seconds in the table's metadata."""
    started = time.process_time()
    problem = make_problems(first, count, nodes, noise)
    made = time.process_time()
    result = gm.solve(problem)
    columns = {
        "number": np.arange(first, first + count),
        "objective": result.objective.numpy(),
        "lower_bound": result.lower_bound.numpy(),
        "gap": result.gap.numpy(),
        "status": [status.name for status in result.statuses],
    }
    seconds = {"making": made - started, "solving": time.process_time() - made}
    return pa.table(columns).replace_schema_metadata({"core_seconds": json.dumps(seconds)})


def batch_file(output: Path, batch: int) -> Path:
    """Where the results of a batch lie."""
    return output / f"batch-{batch:08d}.parquet"


class SolveBatches:
    """Solves batches in a Ray worker and writes their files.

    What a worker was doing when it was killed is done again, by this or by the next run: the file is the same.
    """

    def __init__(self, settings: dict[str, Any], output: str) -> None:
        torch.set_num_threads(1)
        self.settings, self.output = settings, Path(output)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Solves the batches with the given numbers; returns how many problems each has."""
        solved = [self.solve(int(batch)) for batch in rows["batch"]]
        return {"batch": rows["batch"], "problems": np.array(solved)}

    def solve(self, batch: int) -> int:
        """Solves one batch; returns its number of problems."""
        size, problems = self.settings["batch"], self.settings["problems"]
        first = batch * size
        table = solve_numbers(first, min(size, problems - first), self.settings["nodes"], self.settings["noise"])
        path = batch_file(self.output, batch)
        # Named by the process: where Ray believes a worker lost, two may write one batch.
        temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")
        pq.write_table(table, temporary)
        temporary.replace(path)
        return table.num_rows


def read_results(output: Path) -> pa.Table:
    """Reads all rows that are there, in the order of the problems."""
    files = sorted(Path(output).glob("batch-*.parquet"))
    return pads.dataset([str(file) for file in files], format="parquet").to_table().combine_chunks()


def core_seconds(output: Path) -> dict[str, float]:
    """Adds up what workers took to make and to solve problems."""
    total = {"making": 0.0, "solving": 0.0}
    for file in sorted(Path(output).glob("batch-*.parquet")):
        for name, value in json.loads(pq.read_schema(file).metadata[b"core_seconds"]).items():
            total[name] += value
    return total


def open_output(output: Path, settings: dict[str, Any]) -> list[int]:
    """Makes the folder or checks that it is of the same run; returns the batches that are missing."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / _SETTINGS
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if earlier.get(name) != value:
                raise ValueError(
                    f"million_problems: {output} must be of the same run; its {name} is {earlier.get(name)}, now it is "
                    f"{value}. Give the same options, or another --output."
                )
    elif any(output.iterdir()):
        raise ValueError(
            f"million_problems: --output must be a new folder or one of an earlier run; got {output}, which holds "
            "something else. Choose another."
        )
    else:
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    batches = -(-settings["problems"] // settings["batch"])
    there = {int(file.stem.removeprefix("batch-")) for file in output.glob("batch-*.parquet")}
    return [batch for batch in range(batches) if batch not in there]


def start_ray(workers: int, cluster: str | None) -> Any:
    """Starts a Ray of this program alone, or joins a cluster; returns the module.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    # Read when Ray is imported.
    os.environ.update(_ONE_THREAD, RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal")
    if cluster is None:
        # Ray on Linux takes an address that other machines reach, unless it is told that there are none.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    silent = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster is None:
        local = {"num_cpus": workers, "object_store_memory": OBJECT_STORE_BYTES, "_node_ip_address": "127.0.0.1"}
        ray.init(address="local", include_dashboard=False, **local, **silent)
    else:
        ray.init(address=cluster, **silent)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def solve_missing(ray: Any, settings: dict[str, Any], output: Path, missing: list[int], workers: int) -> Iterator[int]:
    """Solves the missing batches on Ray; yields the number of problems of each finished one.

    Raises:
        RuntimeError: A worker fails, and not for having been killed.
    """
    tasks = min(len(missing), _TASKS_PER_WORKER * workers, _MOST_TASKS)
    rows = ray.data.from_items([{"batch": batch} for batch in missing], override_num_blocks=tasks)
    solved = rows.map_batches(
        SolveBatches,
        fn_constructor_args=(settings, str(output.resolve())),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    try:
        for row in solved.iter_rows():
            yield int(row["problems"])
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]
        raise RuntimeError(
            f"million_problems: workers must be able to make, solve and write problems; got: {said}. Correct it; the "
            "same command goes on."
        ) from error


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="million_problems.py", allow_abbrev=False, description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--problems", metavar="N", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--workers", metavar="W", type=int, default=os.cpu_count(), help="default: one per core")
    parser.add_argument("--nodes", metavar="N", type=int, default=16, help="of each graph (default: %(default)s)")
    parser.add_argument("--noise", metavar="S", type=float, default=0.5, help="of the views (default: %(default)s)")
    parser.add_argument("--batch", metavar="N", type=int, default=512, help="problems of a call (default: %(default)s)")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--cluster", metavar="ADDRESS", help='a running Ray, such as "auto" (default: one of its own)')
    options = parser.parse_args(arguments)
    for name, least in (("problems", 1), ("workers", 1), ("nodes", 2), ("batch", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}; got {getattr(options, name)}")
    if not 0 <= options.noise < float("inf"):
        parser.error(f"--noise must be at least 0; got {options.noise}")
    return options


def _counted(finished: Iterator[int], problems: int, there: int) -> int:
    """Shows progress; returns how many problems were solved."""
    solved = 0
    with tqdm(total=problems, initial=there, desc="solving", unit="problem", unit_scale=True) as progress:
        for count in finished:
            solved += count
            progress.update(count)
    return solved


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _options(arguments)
    settings = {name: getattr(options, name) for name in ("problems", "nodes", "noise", "batch")}
    try:
        missing = open_output(options.output, settings)
        there = options.problems - sum(
            min(options.batch, options.problems - batch * options.batch) for batch in missing
        )
        started = time.perf_counter()
        solved = 0
        if missing:
            ray = start_ray(options.workers, options.cluster)
            try:
                finished = solve_missing(ray, settings, options.output, missing, options.workers)
                solved = _counted(finished, options.problems, there)
            finally:
                ray.shutdown()
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        sys.stderr.write(
            'million_problems: Ray must be installed. Install it with `pip install "graphmatch[scale]"`.\n'
        )
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. Finished batches are kept; the same command goes on.\n")
        return 130
    seconds = time.perf_counter() - started
    table = read_results(options.output)
    certified = np.count_nonzero(table["status"].to_numpy() == "OPTIMAL") / table.num_rows
    if solved:
        sys.stdout.write(f"Solved {solved:,} problems in {seconds:.1f} s, start of Ray included.\n")
    gap, cores = np.nanmean(table["gap"].to_numpy()), sum(core_seconds(options.output).values())
    sys.stdout.write(
        f"{table.num_rows:,} of {options.problems:,} rows in {options.output}; {certified:.1%} certified optimal, mean "
        f"gap {gap:.2e}, {cores:.1f} core-seconds.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
