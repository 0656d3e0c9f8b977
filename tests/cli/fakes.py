"""A pipeline that needs no files: it yields the records it is given and remembers what it was asked for."""

import sys
import time
import types

COUNTS = dict.fromkeys(("unchanged", "changed", "added", "removed", "renamed", "reshaped", "retyped", "error"), 0)


def base(seq, kind):
    return {"schema_version": 1, "run_id": "9f2c41d07ab35e18", "seq": seq, "type": kind}


def header(seq=0):
    side = {"path": "a", "format": "safetensors", "tensor_count": 1, "parameter_count": 4, "stored_nbytes": 16, "metadata": []}
    plan = dict.fromkeys(("batch_count", "read_nbytes", "chunk_nbytes", "projected_memory_nbytes", "worker_count"), 1)
    tool = {"name": "diffai_stream", "version": "0"}
    return {
        **base(seq, "header"),
        "tool": tool,
        "old": side,
        "new": side,
        "options": {},
        "plan": {**plan, "executor": "threads"},
    }


def tensor(seq, name="w"):
    side = {"name": name, "dtype": "float32", "encoding": "F32", "shape": [4], "numel": 4, "stored_nbytes": 16}
    figures = {"mean": 0.5, "std": 1.0, "min": -1.0, "max": 2.0, "l2_norm": 1.0, "abs_max": 2.0, "zero_count": 0}
    figures |= {"nan_count": 1, "posinf_count": 0, "neginf_count": 0}
    stats = {"old": figures, "new": figures, "delta": figures}
    change = {"changed_count": 1, "changed_ratio": 0.25, "sign_flip_count": 0, "l2_norm": 1.0, "relative_l2": 0.5}
    change |= {"cosine_similarity": 1.0, "cosine_distance": 0.0, "sqnr_db": 6.0, "max_abs": 1.0, "max_abs_index": [0]}
    own = {"name": name, "layer": None, "role": None, "status": "changed", "match": "exact", "old": side, "new": side}
    return {**base(seq, "tensor"), **own, "stats": stats, "change": {**change, "mean_abs": 0.1}}


def summary(seq, status="different", exit_status=1):
    figures = {"differs_in": [], "counts": COUNTS, "parameter_count": {"old": 4, "new": 4, "changed": 1}, "relative_l2": 0.5}
    cost = {"read_nbytes": 32, "elapsed_seconds": 0.1, "peak_memory_nbytes": 1 << 20}
    return {**base(seq, "summary"), "status": status, "exit_status": exit_status, **figures, **cost}


def plain_run(exit_status=1):
    return [header(), tensor(1), summary(2, exit_status=exit_status)]


class FakePipeline(types.ModuleType):
    """Stands in for `diffai_stream.pipeline`; `records` are yielded, an exception among them is raised."""

    def __init__(self, records=None):
        super().__init__("diffai_stream.pipeline")
        self.records = plain_run() if records is None else records
        self.calls = []
        self.is_closed = False

    def compare(self, *checkpoints, options=None, progress=None, **overrides):
        self.calls.append((*checkpoints, options))
        return self._run(progress)

    def inspect(self, path, options=None, *, progress=None, **overrides):
        self.calls.append((path, None, options))
        return self._run(progress)

    @property
    def options(self):
        return self.calls[-1][2]

    def _run(self, progress):
        try:
            progress.start(100)
            for record in self.records:
                if isinstance(record, BaseException):
                    raise record
                progress.advance(10, "w")
                yield record
        finally:
            self.is_closed = True


class EndlessPipeline(FakePipeline):
    """Yields records until it is stopped, then an interrupted summary, as the real one does."""

    def _run(self, progress):
        seq = 0
        try:
            yield header()
            while True:
                seq += 1
                yield tensor(seq)
                time.sleep(0.01)
        except KeyboardInterrupt:
            pass
        yield summary(seq + 1, "interrupted", 130)


def install(pipeline):
    """Put it in the place of the real one; for a process of its own."""
    sys.modules["diffai_stream.pipeline"] = pipeline
