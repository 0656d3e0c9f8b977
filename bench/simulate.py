"""Replay the plan of a 1.3 TB mixture-of-experts checkpoint over 1 to 512 workers, at rates measured here.

    python bench/simulate.py [--workers N]... [--node-bandwidth GB/S] [--scheduler-seconds S] [--scan-ns NS] ... [--json]

The plan is the real one: both sides are written as files of headers and holes (`moe_pair.py`), opened, aligned and cut by the
planner of the program. What happens to it is simulated: which task starts when, and what waits for what.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

from moe_pair import Config, write_pair
from rates import Rates, measured, planned

WORKERS = tuple(2**k for k in range(10))
ASSUMPTIONS = (
    "Each worker is a process of one thread on a node of its own, as fast as this machine.",
    "A node reads both sides at its bandwidth, whatever the others do, and while it computes: the slower of both counts.",
    "The scheduler serves one task after the other; all it does for a task is done when the task is sent.",
    "The client keeps as many tasks under way as the program does, gives each to the worker with the least to do, and merges "
    "and prints results in the order of the plan.",
    "Nothing fails, and the network costs nothing but what the scheduler is charged.",
)


class Task(NamedTuple):
    """A batch as the simulation sees it: bytes read, slices scanned, tensors whose last slice it has."""

    nbytes: int
    slices: int
    finished: int


class Outcome(NamedTuple):
    """What came of a run; shares are those of one core, of the workers that of all of them."""

    workers: int
    seconds: float
    nbytes: int
    tasks: int
    tasks_per_second: float
    scheduler_share: float
    client_share: float
    worker_share: float
    results_nbytes_per_second: float

    @property
    def limit(self) -> str:
        """Who has the most to do."""
        shares = {"workers": self.worker_share, "scheduler": self.scheduler_share, "client": self.client_share}
        return max(shares, key=lambda name: shares[name])


class Cluster:
    """The state of a simulated cluster: when each worker, the scheduler and the client are free, in seconds from the start."""

    def __init__(self, workers: int, rates: Rates) -> None:
        self.rates = rates
        self.scheduler = self.client = self.client_busy = 0.0
        self.free = [0.0] * workers
        self.load = [0] * workers
        self._idlest = [(0, worker) for worker in range(workers)]  # a heap; entries of another load than now are stale
        self._running: list[tuple[float, int]] = []

    def work(self, seconds: float) -> float:
        """The client does something; when it is done."""
        self.client += seconds
        self.client_busy += seconds
        return self.client

    def send(self, task: Task) -> float:
        """Hand a task out; when its result is back."""
        now = self.work(self.rates.send_seconds)
        while self._running and self._running[0][0] <= now:
            self._count(heappop(self._running)[1], -1)
        worker = self._least_loaded()
        self.scheduler = max(now, self.scheduler) + self.rates.scheduler_seconds
        self.free[worker] = max(self.scheduler, self.free[worker]) + self.rates.task_seconds(task.nbytes, task.slices)
        heappush(self._running, (self.free[worker], worker))
        self._count(worker, 1)
        return self.free[worker]

    def _count(self, worker: int, change: int) -> None:
        self.load[worker] += change
        heappush(self._idlest, (self.load[worker], worker))

    def _least_loaded(self) -> int:
        while self._idlest[0][0] != self.load[self._idlest[0][1]]:
            heappop(self._idlest)
        return self._idlest[0][1]


def simulated(tasks: Sequence[Task], workers: int, rates: Rates, in_flight: int) -> Outcome:
    """Tasks in plan order on so many workers, `in_flight` for each under way."""
    cluster, back = Cluster(workers, rates), list[float]()
    for number, task in enumerate(tasks):
        while len(back) < min(len(tasks), number + in_flight * workers):
            back.append(cluster.send(tasks[len(back)]))
        cluster.client = max(cluster.client, back[number])
        cluster.work(rates.result_seconds + task.finished * rates.record_seconds)
    seconds, nbytes = cluster.client, sum(task.nbytes for task in tasks)
    computing = sum(rates.task_seconds(task.nbytes, task.slices) for task in tasks)
    return Outcome(
        workers=workers,
        seconds=seconds,
        nbytes=nbytes,
        tasks=len(tasks),
        tasks_per_second=len(tasks) / seconds,
        scheduler_share=len(tasks) * rates.scheduler_seconds / seconds,
        client_share=cluster.client_busy / seconds,
        worker_share=computing / seconds / workers,
        results_nbytes_per_second=len(tasks) * rates.result_nbytes / seconds,
    )


def tasks_of(config: Config, chunk_nbytes: int = 0) -> list[Task]:
    """The batches of the pair, in the order of the plan."""
    with tempfile.TemporaryDirectory(prefix="holes-") as folder:
        session = planned(*write_pair(Path(folder), config), chunk_nbytes)
    return [
        Task(batch.nbytes, len(batch.slices), sum(piece.number == piece.count - 1 for piece in batch.slices))
        for batch in session.batches
    ]


HEAD = """| workers | time | speed-up | read | tasks | tasks/s | scheduler | client | workers | results | most busy |
|---|---|---|---|---|---|---|---|---|---|---|"""


def line(outcome: Outcome, first: Outcome) -> str:
    """A row of the Markdown table."""
    seconds = outcome.seconds
    time = f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
    shares = (outcome.scheduler_share, outcome.client_share, outcome.worker_share)
    cells = (
        outcome.workers,
        time,
        f"{first.seconds * first.workers / seconds:.1f}x",
        f"{outcome.nbytes / 1e12:.2f} TB",
        f"{outcome.tasks:,}",
        f"{outcome.tasks_per_second:,.0f}",
        *(f"{100 * share:.0f} %" for share in shares),
        f"{outcome.results_nbytes_per_second / 1e6:,.0f} MB/s",
        outcome.limit,
    )
    return f"| {' | '.join(map(str, cells))} |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workers", type=int, action="append", help="repeatable (default: powers of two up to 512)")
    add("--node-bandwidth", type=float, default=2.0, metavar="GB/S", help="what a node reads, both sides together (default 2)")
    add("--scheduler-seconds", type=float, default=1e-3, metavar="S", help="of the scheduler for a task (default 0.001)")
    add("--send-seconds", type=float, default=2e-4, metavar="S", help="of the client to send a task (default 0.0002)")
    add("--result-seconds", type=float, default=2e-4, metavar="S", help="of the client to take a result (default 0.0002)")
    add("--scan-ns", type=float, help="ns of a worker for a byte (default: measured here)")
    add("--tensor-us", type=float, help="µs of a worker for a tensor or a part of one (default: measured here)")
    add("--record-us", type=float, help="µs of the client for the record of a tensor (default: measured here)")
    add("--result-kb", type=float, help="kB of the result of a task (default: measured here)")
    add("--chunk-mib", type=int, default=0, help="--chunk-size of the comparison (default: the one it has)")
    add("--layers", type=int, default=Config().num_hidden_layers, help="layers of the model (default 61)")
    add("--experts", type=int, default=Config().n_routed_experts, help="experts of a layer (default 256)")
    add("--json", action="store_true", help="NDJSON: rates and assumptions, then a line for each number of workers")
    return parser.parse_args()


def rates_of(chosen: argparse.Namespace) -> Rates:
    """What was given, and what was not as it is measured now."""
    given = {
        "scan_seconds_per_byte": (chosen.scan_ns, 1e-9),
        "slice_seconds": (chosen.tensor_us, 1e-6),
        "record_seconds": (chosen.record_us, 1e-6),
        "result_nbytes": (chosen.result_kb, 1e3),
    }
    known = {name: value * unit for name, (value, unit) in given.items() if value is not None}
    found = {} if len(known) == len(given) else measured()
    return Rates(
        read_seconds_per_byte=1e-9 / chosen.node_bandwidth,
        scheduler_seconds=chosen.scheduler_seconds,
        send_seconds=chosen.send_seconds,
        result_seconds=chosen.result_seconds,
        **{**found, **known},
    )


def main() -> None:
    from diffai_stream.engine.cluster import IN_FLIGHT_PER_THREAD

    chosen = arguments()
    rates = rates_of(chosen)
    tasks = tasks_of(Config(num_hidden_layers=chosen.layers, n_routed_experts=chosen.experts), chosen.chunk_mib << 20)
    outcomes = (simulated(tasks, n, rates, IN_FLIGHT_PER_THREAD) for n in sorted(set(chosen.workers or WORKERS)))
    if chosen.json:
        print(json.dumps({"rates": rates._asdict(), "assumptions": ASSUMPTIONS}))
        for outcome in outcomes:
            print(json.dumps({**outcome._asdict(), "most_busy": outcome.limit}), flush=True)
        return
    print(f"{rates}\n", *(f"- {assumption}" for assumption in ASSUMPTIONS), "", HEAD, sep="\n")
    first = None
    for outcome in outcomes:
        first = first or outcome
        print(line(outcome, first), flush=True)


if __name__ == "__main__":
    sys.exit(main())
