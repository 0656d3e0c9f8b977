"""The rows of this package keep the contracts that the authors of plug-ins run on theirs."""

from __future__ import annotations

import numpy as np
import pytest

from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.encodings.catalogue import ENCODINGS
from diffai_stream.formats.base import Component, TensorEntry
from diffai_stream.formats.catalogue import FORMATS
from diffai_stream.report.catalogue import WRITERS
from diffai_stream.statistics.catalogue import STATISTICS
from diffai_stream.storage.extent import Extent
from diffai_stream.testing import AnalysisContract, EncodingContract, FormatContract, Sample, StatisticLaws, WriterContract
from diffai_stream.testing.checkpoints import write_pair
from tests.fuzz.corpus import CORPUS, weights
from tests.quantized_files import LAYOUTS

HOLDS_WEIGHTS = {"safetensors", "sharded", "npz", "npz-deflated", "torch-dcp", "deepspeed", "joblib", "joblib-zlib"}
RATIOS = {
    "performance_impact_estimate",
    "inference_speed_estimate",
    "memory_analysis",
    "risk_assessment",
    "deployment_readiness",
}
SILENT = {"anomaly", "alert", "quantization"}  # these have records only where something is wrong, or was quantized


def classes(base, rows, **more):
    """A class of tests for each row, named after it."""
    for name, members in rows.items():
        title = "Test" + "".join(part.capitalize() for part in name.replace("-", "_").split("_")) + base.__name__
        yield title, type(title, (base,), {"__module__": __name__, **members, **more})


def _format(name, seed):
    members = {"row": FORMATS[seed.format], "write": lambda self, folder: seed.write(folder)}
    members["arrays"] = weights() if name in HOLDS_WEIGHTS else {}
    if not seed.is_available:
        members["pytestmark"] = [pytest.mark.skip(f"needs {seed.needs}")]
    return members


def _ggml(name):
    """Blocks of random bytes but for their scales, as gguf itself reads them."""
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[name]
    raw = gguf.quantize(values, kind).reshape(-1).view(np.uint8)
    component = Component((Extent("w", 0, raw.size),), "U8", (raw.size,))
    yield Sample(TensorEntry("w", values.shape, name, {"data": component}), {"data": raw}, gguf.dequantize(raw, kind))


def _encoding(row):
    return {"row": row, **({"samples": lambda self: _ggml(row.name), "tolerance": 1e-6} if row.decoder else {})}


def _analysis(row):
    pair = {"pair": _widened} if row.name in RATIOS else {}
    return {"row": row, "may_be_silent": row.name in SILENT, **pair}


def _widened(self, folder, seed):
    """A fine-tune, or for another seed a model of another size: what tells sizes apart by ratios says something else."""
    sides = write_pair(folder / "tuned", 0) if not seed else (write_pair(folder / name, n)[0] for n, name in enumerate("ab"))
    return tuple(sides)


PLAIN = {name: _encoding(row) for name, row in ENCODINGS.items() if not row.decoder}
GGML = {name: _encoding(ENCODINGS[name]) for name in ("Q8_0", "Q4_0", "Q5_1")}
FILES = {name: _format(name, seed) for name, seed in CORPUS.items() if name not in LAYOUTS}
globals().update(classes(FormatContract, FILES))
globals().update(classes(EncodingContract, PLAIN | GGML))
# one that needs a third checkpoint has tests of its own
JUDGED = {name: _analysis(row) for name, row in ANALYSES.items() if not row.argument}
globals().update(classes(AnalysisContract, JUDGED))
globals().update(classes(WriterContract, {name: {"row": row} for name, row in WRITERS.items()}))


class TestEveryStatistic(StatisticLaws):
    statistics = tuple(row.open(view) for row in STATISTICS.values() if not row.fused for view in row.views)
    shapes = ((), (0,), (5, 3), (300, 512))
    encodings = (("F32", "BF16"),)


def test_every_row_has_its_class():
    found = {name for name in globals() if name.startswith("Test")}
    assert len(found) == len(FILES) + len(PLAIN) + len(GGML) + len(JUDGED) + len(WRITERS) + 1
