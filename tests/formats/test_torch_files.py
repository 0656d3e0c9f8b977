"""Files that torch itself wrote, against the same weights in safetensors."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffai_stream.errors import FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from diffai_stream.pipeline import compare

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of its own old ways

DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"),
    *("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"),
]
WRITERS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "zip_protocol_4": {"pickle_protocol": 4},
    "legacy_protocol_5": {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
}


def weights() -> dict:
    torch.manual_seed(7)
    return {
        "embed.weight": torch.randn(40, 24),
        "norm.weight": torch.ones(24, dtype=torch.bfloat16),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 5),
        "ids": torch.arange(12).reshape(3, 4),
    }


def verdict(old, new, **options) -> dict:
    """The summary of a comparison, whose errors would be raised by the assertion."""
    records = list(compare(str(old), str(new), **options))
    assert [record for record in records if record["type"] == "error"] == []
    return records[-1]


def written(path: Path, value: object, **how) -> Path:
    torch.save(value, path, **how)
    return path


def exported(path: Path, tensors: dict) -> Path:
    safetensors.save_file(
        {name: tensor.detach().resolve_conj().resolve_neg().contiguous().clone() for name, tensor in tensors.items()}, path
    )
    return path


@pytest.mark.parametrize("writer", ["zip_protocol_4", "legacy_protocol_5"])
def test_other_protocols_are_equal_to_safetensors(writer, tmp_path):
    path = written(tmp_path / "model.pt", weights(), **WRITERS[writer])
    summary = verdict(exported(tmp_path / "x.safetensors", weights()), path)
    assert (summary["status"], summary["differs_in"]) == ("equivalent", ["container"])
    assert summary["counts"]["unchanged"] == len(weights())


@pytest.mark.parametrize("writer", ["zip", "legacy"])
def test_a_changed_element_is_found(writer, tmp_path):
    changed = weights()
    changed["embed.weight"][3, 4] += 1
    old, new = (written(tmp_path / name, value, **WRITERS[writer]) for name, value in (("a.pt", weights()), ("b.pt", changed)))
    (record,) = [record for record in compare(str(old), str(new)) if record["type"] == "tensor"]
    assert (record["name"], record["change"]["changed_count"]) == ("embed.weight", 1)
    assert record["change"]["max_abs_index"] == [3, 4]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, tmp_path):
    values = {"w": torch.randint(0, 2, (8, 6)).to(getattr(torch, dtype))}
    summary = verdict(exported(tmp_path / "x.safetensors", values), written(tmp_path / "m.pt", values))
    assert (summary["status"], summary["counts"]["unchanged"]) == ("equivalent", 1)


LAYOUTS = {
    "transposed": lambda: torch.randn(30, 50).t(),
    "channels_last": lambda: torch.randn(8, 3, 5, 7).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
    "expanded": lambda: torch.randn(1, 20).expand(30, 20),
    "expanded_scalar": lambda: torch.randn(()).expand(7, 9),
    "sliced_rows": lambda: torch.randn(30, 20)[5:25],
    "sliced_columns": lambda: torch.randn(30, 20)[:, 3:9],
    "stepped": lambda: torch.randn(30, 20)[::3, ::2],
    "permuted": lambda: torch.randn(6, 5, 4, 3).permute(2, 0, 3, 1),
    "overlapping": lambda: torch.randn(100).as_strided((20, 30), (3, 1)),
    "negative": lambda: torch.randn(9, 4, dtype=torch.complex64).conj().imag,
    "conjugate": lambda: torch.randn(9, 4, dtype=torch.complex64).conj(),
    "conjugate_transposed": lambda: torch.randn(9, 4, dtype=torch.complex64).mH,
    "complex_transposed": lambda: torch.randn(9, 4, dtype=torch.complex64).t(),
}


@pytest.mark.parametrize("writer", ["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(layout, writer, tmp_path):
    values = {"w": LAYOUTS[layout](), "b": torch.zeros(3)}
    path = written(tmp_path / "m.pt", values, **WRITERS[writer])
    summary = verdict(exported(tmp_path / "x.safetensors", values), path)
    assert (summary["status"], summary["counts"]["unchanged"]) == ("equivalent", 2)


def test_tied_weights_are_one_tensor_and_an_alias(tmp_path):
    shared = torch.randn(20, 8)
    tied = {"embed.weight": shared, "head.weight": shared, "view": shared[3:9]}
    found = open_checkpoint(str(written(tmp_path / "m.pt", tied)))
    assert [entry.name for entry in found.tensors] == ["embed.weight", "view"]
    assert found.aliases == {"head.weight": "embed.weight"}
    summary = verdict(exported(tmp_path / "x.safetensors", tied), tmp_path / "m.pt")
    assert (summary["status"], summary["counts"]["removed"], summary["counts"]["error"]) == ("equivalent", 0, 0)


def repacked(path: Path, method: int) -> Path:
    """The archive with its members compressed again, as some uploaders do."""
    target = path.with_name("again.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", method) as archive:
        for name in reversed(source.namelist()):
            archive.writestr(name, source.read(name))
    return target


def test_a_compressed_archive(tmp_path):
    values = {**weights(), "t": torch.randn(30, 50).t(), "part": torch.randn(9, 9)[2:5]}
    path = repacked(written(tmp_path / "m.pt", values), zipfile.ZIP_DEFLATED)
    summary = verdict(exported(tmp_path / "x.safetensors", values), path)
    assert (summary["status"], summary["counts"]["unchanged"]) == ("equivalent", len(values))


def test_a_single_tensor_and_a_list(tmp_path):
    assert [entry.name for entry in open_checkpoint(str(written(tmp_path / "t.pt", torch.ones(3)))).tensors] == ["tensor"]
    path = written(tmp_path / "l.pt", [torch.ones(3), (torch.zeros(2), torch.zeros(1))])
    assert [entry.name for entry in open_checkpoint(str(path)).tensors] == ["0", "1.0", "1.1"]


def test_whole_modules_have_the_names_of_their_state_dict(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Sequential(torch.nn.Linear(4, 2)))
    model.register_buffer("scratch", torch.ones(2), persistent=False)
    for how in ("zip", "legacy"):
        found = open_checkpoint(str(written(tmp_path / "m.pt", model, **WRITERS[how])))
        assert [entry.name for entry in found.tensors] == list(model.state_dict())
        assert found.unsafe_globals == ()
    assert verdict(exported(tmp_path / "x.safetensors", model.state_dict()), tmp_path / "m.pt")["status"] == "equivalent"


def test_torchscript_has_the_names_of_its_modules(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Sequential(torch.nn.Linear(4, 2)))
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 5)), tmp_path / "m.pt")
    summary = verdict(exported(tmp_path / "x.safetensors", model.state_dict()), tmp_path / "m.pt")
    assert (summary["status"], summary["counts"]["unchanged"]) == ("equivalent", 4)
    frozen = torch.jit.freeze(torch.jit.trace(model.eval(), torch.zeros(1, 5)))
    torch.jit.save(frozen, tmp_path / "frozen.pt")
    assert {tuple(entry.shape) for entry in open_checkpoint(str(tmp_path / "frozen.pt")).tensors} >= {(4, 5), (2, 4)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: torch.eye(4).to_sparse(), "sparse"),
        (lambda: torch.eye(4).to_sparse_csr(), "sparse"),
        (lambda: torch.empty(3, device="meta"), "meta device"),
        (lambda: torch.zeros(3, dtype=torch.complex32), "complex32"),
    ],
)
def test_what_cannot_be_compared_says_so_by_name(value, message, tmp_path):
    found = open_checkpoint(str(written(tmp_path / "m.pt", {"odd": value(), "w": torch.ones(2)})))
    assert [entry.name for entry in found.tensors] == ["w"]
    (error,) = found.errors
    assert error.tensor == "odd"
    assert message in error.message


def test_an_old_tar_is_refused(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "old.pth", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(FormatError, match="not supported"):
        open_checkpoint(str(tmp_path / "old.pth"))


def test_a_tensor_subclass_gives_what_it_wraps(tmp_path):
    two = pytest.importorskip("torch.testing._internal.two_tensor")
    wrapped = two.TwoTensor(torch.ones(3, 4), torch.zeros(3, 4))
    found = open_checkpoint(str(written(tmp_path / "m.pt", {"w": wrapped, "plain": torch.ones(2)})))
    assert [entry.name for entry in found.tensors] == ["w.a", "w.b", "plain"]
    (oddity,) = found.oddities
    assert (oddity.code, oddity.tensor) == ("tensor_subclass", "w")
    assert "TwoTensor" in oddity.message


def test_arrays_beside_tensors_are_told(tmp_path):
    arrays = {"a": np.arange(3.0), "scalar": np.float64(2.5), "text": np.str_("x")}
    found = open_checkpoint(str(written(tmp_path / "m.pt", {"w": torch.ones(2), **arrays})))
    assert [entry.name for entry in found.tensors] == ["w"]
    assert (found.errors, [oddity.code for oddity in found.oddities]) == ((), ["array_not_compared"])
    assert found.hyperparameters == {"scalar": 2.5}
    (error,) = open_checkpoint(str(written(tmp_path / "n.pt", {"a": np.arange(3.0)}))).errors
    assert (error.tensor, "NumPy" in error.message) == ("a", True)
