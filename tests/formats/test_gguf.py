"""GGUF: what the gguf package writes is read as it was meant; what is wrong costs no more than it has to."""

from __future__ import annotations

import tracemalloc

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from diffai_stream.context.read import context_of
from diffai_stream.encodings.ggml import TYPES
from diffai_stream.errors import FormatError
from diffai_stream.formats.catalogue import open_checkpoint
from tests.checkpoints import read_extents, write_cache, write_safetensors
from tests.gguf_files import ARRAY, FLAWS, STRING, array, f32, info, key, text, u16, write_gguf
from tests.gguf_files import gguf as gguf_bytes

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
PLAIN = {"F32": "f4", "F16": "f2", "F64": "f8", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}


def written(path, tensors, fill=lambda writer: None, **options):
    """A file of the gguf package: arrays by name, with their type where it is not that of the array."""
    writer = GGUFWriter(path, "llama", **options)
    fill(writer)
    for name, (values, kind) in tensors.items():
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def opened(path):
    found = open_checkpoint(str(path))
    assert found.format == "gguf"
    return found


def by_name(found):
    return {entry.name: entry for entry in found.tensors}


@pytest.mark.parametrize("kind", [row for row in TYPES.values() if row.encoding], ids=lambda kind: kind.name)
def test_every_type_as_the_package_writes_it(kind, tmp_path):
    number = GGMLQuantizationType(kind.number)
    if kind.name in PLAIN:
        values = np.arange(24).reshape(2, 3, 4).astype(PLAIN[kind.name])
    else:
        values = np.random.default_rng(0).integers(0, 256, (2, 3, 2 * kind.nbytes), dtype=np.uint8)
    found = opened(written(tmp_path / "x.gguf", {"pad": (VALUES, None), "w": (values, number)}))
    entry = by_name(found)["w"]
    (reference,) = (t for t in GGUFReader(tmp_path / "x.gguf").tensors if t.name == "w")
    assert list(entry.shape) == reference.shape.tolist()[::-1]
    assert (entry.encoding, entry.numel) == (kind.encoding, reference.n_elements)
    assert entry.components["data"].extents[0].offset == reference.data_offset
    assert read_extents(entry) == values.tobytes()
    assert entry.stored_nbytes * 8 == entry.numel * kind.bits_per_weight
    assert not found.errors
    assert not found.oddities


def test_metadata_as_text(tmp_path):
    def fill(writer):
        writer.add_head_count(32)
        writer.add_head_count_kv([8, 8, 4])
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(3.4028234663852886e38)
        writer.add_name("naïve — 模型")
        writer.add_bool("x.true", True)
        writer.add_uint64("x.large", 2**64 - 1)
        writer.add_int8("x.negative", -128)
        writer.add_float64("x.double", 0.1)
        writer.add_array("general.tags", ["a", 'b"c'])
        writer.add_token_list([f"token {i}" for i in range(1000)])
        writer.add_token_types([1] * 1000)

    metadata = opened(written(tmp_path / "x.gguf", {"w": (VALUES, None)}, fill)).metadata
    tokens, types = metadata.pop("tokenizer.ggml.tokens"), metadata.pop("tokenizer.ggml.token_type")
    assert metadata == {
        "general.architecture": "llama",
        "llama.attention.head_count": "32",
        "llama.attention.head_count_kv": "[8, 8, 4]",
        "llama.attention.layer_norm_rms_epsilon": "1e-05",
        "llama.rope.freq_base": "3.4028235e+38",
        "general.name": "naïve — 模型",
        "x.true": "true",
        "x.large": "18446744073709551615",
        "x.negative": "-128",
        "x.double": "0.1",
        "general.tags": '["a", "b\\"c"]',
    }
    assert tokens.startswith("1000 strings (xxh3 ")
    assert types.startswith("1000 i32 (xxh3 ")


def test_a_changed_vocabulary_shows(tmp_path):
    def opened_with(last):
        return opened(written(tmp_path / "x.gguf", {"w": (VALUES, None)}, lambda w: w.add_token_list([*"ab" * 100, last])))

    found = [opened_with("x"), opened_with("y")]
    assert found[0].metadata["tokenizer.ggml.tokens"] != found[1].metadata["tokenizer.ggml.tokens"]


def test_the_vocabulary_names_the_rows_of_the_embedding(tmp_path):
    def fill(writer):
        writer.add_array("general.tags", ["no", "token"])
        writer.add_token_list(["<s>", "Ġthe", "naïve"])

    path = written(tmp_path / "x.gguf", {"token_embd.weight": (VALUES, None)}, fill)
    tokenizer = context_of(opened(path)).tokenizer
    assert tokenizer.tokens == ["<s>", "Ġthe", "naïve"]
    assert tokenizer.source == "tokenizer.ggml.tokens"
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    assert context_of(opened(path)).tokenizer.source == "vocab.txt"
    (tmp_path / "vocab.txt").unlink()
    assert context_of(opened(written(path, {"w": (VALUES, None)}))).tokenizer is None


def test_version_2_alignment_and_nested_arrays(tmp_path):
    nested = array(ARRAY, 2, array(4, 2, bytes(8)) + array(STRING, 1, text("deep")))
    raw = gguf_bytes(
        [info("a", (2, 3), 0, 0), info("b", (2, 3), 0, 256)],
        [key("general.alignment", 4, (256).to_bytes(4, "little")), key("n", ARRAY, nested)],
        VALUES.tobytes() + bytes(232) + (VALUES + 1).tobytes(),
        version=2,
        alignment=256,
    )
    (tmp_path / "x.gguf").write_bytes(raw)
    found = opened(tmp_path / "x.gguf")
    assert read_extents(by_name(found)["b"]) == (VALUES + 1).tobytes()
    assert found.metadata["n"].startswith("2 arrays (xxh3 ")
    assert not found.oddities


def test_a_large_vocabulary_is_stepped_over_in_little_memory(tmp_path):
    tokens = b"".join(text(f"token {i}") for i in range(128_256))
    merges = b"".join(text(f"to ken{i}") for i in range(280_147))
    keys = [key("t", ARRAY, array(STRING, 128_256, tokens)), key("m", ARRAY, array(STRING, 280_147, merges))]
    path = write_gguf(tmp_path / "x.gguf", {"a": f32(VALUES)}, keys)
    opened(path)
    tracemalloc.start()
    assert len(opened(path).tensors) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * path.stat().st_size


def split(folder, parts, **extra):
    for number, tensors in enumerate(parts):
        keys = [u16("split.no", number), u16("split.count", len(parts)), key("split.tensors.count", 5, b"\x03\0\0\0")]
        name = f"model-{number + 1:05}-of-{len(parts):05}.gguf"
        write_gguf(folder / name, {n: f32(v) for n, v in tensors.items()}, [*keys, *extra.get(f"keys{number}", [])])
    return folder


THREE = ({"a": VALUES}, {"b": VALUES + 1}, {"c": VALUES + 2})


@pytest.mark.parametrize("named", ["model-00001-of-00003.gguf", "model-00003-of-00003.gguf", "."])
def test_any_part_names_the_whole_model(named, tmp_path):
    found = opened(split(tmp_path, THREE, keys0=[key("general.name", STRING, text("x"))]) / named)
    assert list(by_name(found)) == ["a", "b", "c"]
    assert read_extents(by_name(found)["c"]) == (VALUES + 2).tobytes()
    assert found.metadata == {"general.name": "x"}
    assert len(found.stamps) == 3
    assert not found.errors
    assert not found.oddities


def test_parts_that_are_missing_or_damaged_are_errors(tmp_path):
    split(tmp_path, THREE)
    (tmp_path / "model-00001-of-00003.gguf").unlink()
    (tmp_path / "model-00003-of-00003.gguf").write_bytes(b"GGUF")
    found = opened(tmp_path / "model-00002-of-00003.gguf")
    assert list(by_name(found)) == ["b"]
    assert {error.path: error.message for error in found.errors} == {
        str(tmp_path / "model-00001-of-00003.gguf"): "this part of the model is missing",
        str(tmp_path / "model-00003-of-00003.gguf"): found.errors[0].message,
    }
    (tmp_path / "model-00002-of-00003.gguf").unlink()
    with pytest.raises(FormatError, match="truncated"):
        open_checkpoint(str(tmp_path / "model-00003-of-00003.gguf"))


def test_counts_that_contradict_the_parts_are_noted(tmp_path):
    split(tmp_path, THREE[:2])
    assert [oddity.code for oddity in opened(tmp_path).oddities] == ["wrong_tensor_count"]


def test_directories(tmp_path):
    model, projector = tmp_path / "m" / "model.gguf", tmp_path / "m" / "mmproj-model.gguf"
    write_gguf(model, {"a": f32(VALUES)})
    write_gguf(projector, {"v": f32(VALUES)})
    found = opened(tmp_path / "m")
    assert list(by_name(found)) == ["a"]
    assert "mmproj-model.gguf" in found.oddities[0].message
    write_safetensors(tmp_path / "m" / "model.safetensors", {"s": VALUES})
    assert open_checkpoint(str(tmp_path / "m")).format == "huggingface"


def test_a_cached_blob_is_known_by_its_name(tmp_path):
    content = write_gguf(tmp_path / "x.gguf", {"a": f32(VALUES)}).read_bytes()
    root = write_cache(tmp_path / "models--org--name", {"x.gguf": content})
    for path in (next(root.glob("snapshots/*/x.gguf")), next(root.glob("snapshots/*")), root):
        found = opened(path)
        assert list(found.identities.values()) == ["0" * 64]
        assert list(by_name(found)) == ["a"]


def test_an_output_left_out_is_the_embedding(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", {"token_embd.weight": f32(VALUES)})
    assert opened(path).aliases == {"output.weight": "token_embd.weight"}
    path = write_gguf(tmp_path / "y.gguf", {"token_embd.weight": f32(VALUES), "output.weight": f32(VALUES)})
    assert opened(path).aliases == {}


SECOND_FAILS = {
    "gguf_name_not_utf8": "not UTF-8",
    "gguf_rank_of_100": "dimensions",
    "gguf_shape_overflows": "overflows",
    "gguf_shape_overflows_but_empty": "overflows",
    "gguf_rows_of_part_blocks": "Q8_0 blocks of 32",
    "gguf_blocks_without_axis": "Q8_0 blocks of 32",
    "gguf_type_removed": r"type 31 \(Q4_0_4_4",
    "gguf_type_unknown": "type 4000000000 cannot",
    "gguf_type_of_no_decoder": r"type 15 \(Q8_K\)",
    "gguf_offset_of_2_to_63": "beyond the end",
    "gguf_offset_outside": "24 of its 24 bytes",
    "gguf_tensors_overlap": "overlaps 'a'",
    "gguf_data_cut_off": "16 of its 24 bytes",
}


@pytest.mark.parametrize(("flaw", "message"), SECOND_FAILS.items())
def test_one_bad_tensor_costs_one_tensor(flaw, message, tmp_path):
    (tmp_path / "x.gguf").write_bytes(FLAWS[flaw])
    found = opened(tmp_path / "x.gguf")
    assert list(by_name(found)) == ["a"]
    (error,) = found.errors
    assert error.tensor in ("b", "\\xff\\xfe")
    assert error.offset is not None
    with pytest.raises(type(error), match=message):
        raise error


def test_a_name_declared_twice_is_left_out(tmp_path):
    (tmp_path / "x.gguf").write_bytes(FLAWS["gguf_name_twice"])
    found = opened(tmp_path / "x.gguf")
    assert not found.tensors
    assert "declared 2 times" in str(found.errors[0])


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_crash_or_read_outside(seed, tmp_path):
    rng = np.random.default_rng(seed)
    raw = bytearray(write_gguf(tmp_path / "s.gguf", {n: f32(VALUES) for n in "abc"}, [u16("k", 1)]).read_bytes())
    for place in rng.integers(4, len(raw), 4):
        raw[place] = rng.integers(0, 256)
    (tmp_path / "x.gguf").write_bytes(raw)
    try:
        found = open_checkpoint(str(tmp_path / "x.gguf"))
    except FormatError:
        return
    for entry in found.tensors:
        assert len(read_extents(entry)) == entry.stored_nbytes
        assert entry.stored_nbytes * 8 == entry.numel * gguf_bits(entry)


def gguf_bits(entry):
    return next(row.bits_per_weight for row in TYPES.values() if row.encoding == entry.encoding)


def test_the_package_agrees_about_files_made_here(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", {"a": f32(VALUES), "b": f32(VALUES + 1)}, [u16("k", 1)])
    assert [t.name for t in gguf.GGUFReader(path).tensors] == ["a", "b"]
