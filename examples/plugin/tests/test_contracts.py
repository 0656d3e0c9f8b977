"""The rows keep the contracts: `pytest examples/plugin` once the package is installed, or from its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffai_example import ANALYSIS, FORMAT, WRITER
from diffai_example.lines import write
from diffai_example.log8 import ENCODING, values
from diffai_example.ratio_range import RatioRange

from diffai_stream.testing import AnalysisContract, EncodingContract, FormatContract, StatisticLaws, WriterContract
from diffai_stream.testing.checkpoints import transformer, write_model

CODES = np.arange(256, dtype=np.uint8).reshape(8, 32)
PLAIN = np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7)


class TestLines(FormatContract):
    """Both encodings in one file."""

    row = FORMAT
    arrays = {"plain": PLAIN, "codes": values()[CODES]}

    def write(self, folder: Path) -> Path:
        return write(folder / "model.lines", {"plain": ("F32", PLAIN), "codes": ("LOG8", CODES)})


class TestLog8(EncodingContract):
    row = ENCODING


class TestRatioRange(StatisticLaws):
    statistics = (RatioRange(),)


class TestScaling(AnalysisContract):
    """One matrix is multiplied, by another number for another seed."""

    row = ANALYSIS

    def pair(self, folder: Path, seed: int) -> tuple[Path, Path]:
        model = transformer(32, seed=seed)
        name = "model.layers.1.mlp.up_proj.weight"
        scaled = {**model, name: model[name] * np.float32(64 + seed)}
        return write_model(folder / "old", model), write_model(folder / "new", scaled)

    def test_it_finds_the_tensor_that_was_scaled(self, tmp_path: Path) -> None:
        found = self.of(self.run(self.pair(tmp_path, 0)))
        assert [(record["subject"], record["factor"]) for record in found] == [("model.layers.1.mlp.up_proj.weight", 64.0)]


class TestTsv(WriterContract):
    row = WRITER
