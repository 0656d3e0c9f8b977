"""The options of a run, with the defaults that work without any."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

MIB = 1 << 20
DEFAULT_CHUNK_NBYTES = 16 * MIB
NEUTRAL = frozenset(
    (
        *("strict", "exit_zero", "fail_on", "io", "memory_limit", "chunk_size"),
        *("workers", "executor", "scheduler", "scheduler_file", "path_maps", "tls_ca_file", "tls_cert", "tls_key", "store"),
        *("review_friendly", "generate_report", "include_charts"),
    )
)


@dataclass(frozen=True)
class Options:
    """Everything that can be asked of a comparison.

    `analyses` are names of the catalogue, as their flags give them; the ones that run by default need not be named.
    Sizes are in bytes. Options named in NEUTRAL never change a figure, only its cost or the exit status: they are left out of
    the run's identity.
    """

    analyses: tuple[str, ...] = ()
    all_analyses: bool = False
    stats: bool = False
    histograms: bool = False
    include_unchanged: bool = False
    sort_by_change_magnitude: bool = False
    fast: bool = False
    ignore_optimizer_state: bool = False
    compare_gradients: bool = False
    epsilon: float = 0.0
    relative_tolerance: float = 0.0
    quantization_aware: bool = False
    model_type: str = ""
    merge_base: str | None = None
    precision_loss_threshold: float | None = None
    tolerance: float = 0.01
    tolerance_per_layer: tuple[tuple[str, float], ...] = ()
    expect_unchanged: tuple[str, ...] = ()
    min_sqnr: float | None = None
    max_size: int | None = None
    learning_rate: float | None = None
    memory_bandwidth: float | None = None
    peak_flops: float | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    maps: tuple[tuple[str, str], ...] = ()
    top: int = 20
    review_friendly: bool = False
    generate_report: bool = False
    include_charts: bool = False
    strict: bool = False
    exit_zero: bool = False
    fail_on: tuple[str, ...] = ()
    io: str = "auto"
    memory_limit: int | None = None
    chunk_size: int = DEFAULT_CHUNK_NBYTES
    workers: int | None = None
    executor: str = "threads"
    scheduler: str | None = None
    scheduler_file: str | None = None
    path_maps: tuple[tuple[str, str], ...] = ()
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    store: str | None = None

    def identity(self) -> dict[str, Any]:
        """The options that can change a figure, and differ from their defaults."""
        default = Options()
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NEUTRAL}
        return {name: value for name, value in chosen.items() if value != getattr(default, name)}
