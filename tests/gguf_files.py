"""GGUF files for tests, written byte by byte, so that what no library would write can be written too."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

F32, STRING, ARRAY = 6, 8, 9
Tensor = tuple[int, Sequence[int], bytes]  # type, sizes as NumPy has them, bytes


def text(value: str | bytes) -> bytes:
    """A string: its length and its bytes."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    """A key with its value as it lies in the file."""
    return text(name) + struct.pack("<I", kind) + value


def u32(name: str, value: int) -> bytes:
    """A key of a u32."""
    return key(name, 4, struct.pack("<I", value))


def u16(name: str, value: int) -> bytes:
    """A key of a u16."""
    return key(name, 2, struct.pack("<H", value))


def array(kind: int, count: int, values: bytes) -> bytes:
    """The value of an array."""
    return struct.pack("<IQ", kind, count) + values


def info(name: str | bytes, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """A declared tensor; sizes are written the fastest first."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


def gguf(
    infos: Sequence[bytes],
    keys: Sequence[bytes] = (),
    data: bytes = b"",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A file; `counts` of tensors and keys lie where they are given."""
    tensor_count, key_count = counts or (len(infos), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, key_count) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def write_gguf(path: Path, tensors: Mapping[str, Tensor], keys: Sequence[bytes] = (), version: int = 3) -> Path:
    """A sound file with the tensors in the order given."""
    infos, blobs, place = [], [], 0
    for name, (kind, shape, raw) in tensors.items():
        infos.append(info(name, shape, kind, place))
        blobs.append(raw + bytes(-len(raw) % 32))
        place += len(blobs[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf(infos, keys, b"".join(blobs), version))
    return path


def f32(array: np.ndarray) -> Tensor:
    """A float32 tensor."""
    return 0, array.shape, np.ascontiguousarray(array, np.float32).tobytes()


_ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)
_DATA = _ARRAY.tobytes() + bytes(8)
_A, _B = info("a", (2, 3), 0, 0), info("b", (2, 3), 0, 32)
_MAGIC_AND_COUNTS = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)


def _nested(depth: int) -> bytes:
    value = array(0, 0, b"")
    for _ in range(depth - 1):
        value = array(ARRAY, 1, value)
    return value


def _flawed(second: bytes) -> bytes:
    """A sound tensor `a` beside a second one."""
    return gguf([_A, second], data=_DATA * 2)


FLAWS = {
    "gguf_magic_only": b"GGUF",
    "gguf_version_1": b"GGUF" + struct.pack("<III", 1, 0, 0),
    "gguf_version_9": gguf([_A], data=_DATA, version=9),
    "gguf_big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "gguf_before_gguf": b"tjgg" + struct.pack("<I", 3) + bytes(64),
    "gguf_header_cut_off": gguf([_A, _B], data=_DATA * 2)[:70],
    "gguf_tensors_of_2_to_60": gguf([_A], data=_DATA, counts=(2**60, 0)),
    "gguf_keys_of_2_to_60": gguf([_A], data=_DATA, counts=(1, 2**60)),
    "gguf_key_of_2_to_60": _MAGIC_AND_COUNTS + struct.pack("<Q", 2**60) + bytes(64),
    "gguf_string_of_2_to_60": _MAGIC_AND_COUNTS + key("k", STRING, struct.pack("<Q", 2**60)) + bytes(64),
    "gguf_array_of_2_to_60": _MAGIC_AND_COUNTS + key("k", ARRAY, array(4, 2**60, bytes(64))),
    "gguf_strings_of_2_to_60": _MAGIC_AND_COUNTS + key("k", ARRAY, array(STRING, 2**60, bytes(64))),
    "gguf_strings_without_end": _MAGIC_AND_COUNTS + key("k", ARRAY, array(STRING, 2, struct.pack("<Q", 2**64 - 1) * 8)),
    "gguf_arrays_of_2_to_60": _MAGIC_AND_COUNTS + key("k", ARRAY, array(ARRAY, 2**60, bytes(64))),
    "gguf_arrays_nest": gguf([_A], [key("k", ARRAY, _nested(4000))], _DATA),
    "gguf_type_of_key": gguf([_A], [key("k", 77, bytes(8))], _DATA),
    "gguf_alignment_0": gguf([_A], [u32("general.alignment", 0)], _DATA),
    "gguf_alignment_text": gguf([_A], [key("general.alignment", STRING, text("wide"))], _DATA),
    "gguf_key_twice": gguf([_A], [u32("k", 1), u32("k", 2)], _DATA),
    "gguf_name_of_2_to_60": gguf([struct.pack("<Q", 2**60) + bytes(32)], data=_DATA),
    "gguf_name_not_utf8": _flawed(info(b"\xff\xfe", (2, 3), 0, 32)),
    "gguf_name_twice": _flawed(info("a", (2, 3), 0, 32)),
    "gguf_rank_of_100": _flawed(text("b") + struct.pack("<I100QIQ", 100, *[1] * 100, 0, 32)),
    "gguf_rank_of_2_to_31": _flawed(text("b") + struct.pack("<I", 2**31)),
    "gguf_shape_overflows": _flawed(info("b", (2**40, 2**40), 0, 32)),
    "gguf_shape_overflows_but_empty": _flawed(info("b", (0, 2**40, 2**40), 0, 32)),
    "gguf_rows_of_part_blocks": _flawed(info("b", (3, 40), 8, 32)),
    "gguf_blocks_without_axis": _flawed(info("b", (), 8, 32)),
    "gguf_type_removed": _flawed(info("b", (1, 32), 31, 32)),
    "gguf_type_unknown": _flawed(info("b", (1, 32), 4_000_000_000, 32)),
    "gguf_type_of_no_decoder": _flawed(info("b", (1, 256), 15, 32)),
    "gguf_offset_of_2_to_63": _flawed(info("b", (2, 3), 0, 2**63)),
    "gguf_offset_outside": _flawed(info("b", (2, 3), 0, 64)),
    "gguf_offset_unaligned": _flawed(info("b", (2, 2), 0, 40)),
    "gguf_tensors_overlap": _flawed(info("b", (2, 3), 0, 8)),
    "gguf_tensors_share_bytes": _flawed(info("b", (2, 3), 0, 0)),
    "gguf_data_cut_off": gguf([_A, _B], data=(_DATA * 2)[:40]),
    "gguf_gap": gguf([_A, info("b", (2, 3), 0, 96)], data=_DATA * 4),
    "gguf_trailing_bytes": gguf([_A], data=_DATA * 3),
    "gguf_part_under_another_name": gguf([_A], [u16("split.no", 0), u16("split.count", 2)], _DATA),
}
