"""16-bit tensors are read where they lie, also at odd places of a file: members of a zip archive begin anywhere."""

import struct
import zipfile

import numpy as np

from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors

ASKED = {"all_analyses": True, "stats": True, "histograms": True, "analyses": ("spectrum",)}


def data_offsets(path):
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            file.seek(member.header_offset + 26)
            yield member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))


def figures(records):
    kept = [{key: item for key, item in record.items() if key not in ("run_id", "seq")} for record in records]
    told = [record for record in kept if record["type"] not in ("header", "summary")]
    return sorted(told, key=lambda record: (record["type"], str(record.get("name")), str(record.get("subject"))))


def test_odd_places_change_no_figure(tmp_path):
    random = np.random.default_rng(0)
    for side in ("old", "new"):
        tensors = {f"layer.{i}.w": random.normal(size=(300 + i, 512)).astype(np.float16) for i in range(5)}
        np.savez(tmp_path / f"{side}.npz", **tensors)
        write_safetensors(tmp_path / f"{side}.safetensors", tensors)
        assert {offset % 2 for offset in data_offsets(tmp_path / f"{side}.npz")} == {0, 1}
    found = [list(compare(str(tmp_path / f"old.{e}"), str(tmp_path / f"new.{e}"), **ASKED)) for e in ("npz", "safetensors")]
    assert figures(found[0]) == figures(found[1])
    assert len(figures(found[0])) > 20
