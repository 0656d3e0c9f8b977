"""Object files placed in memory run as the compiler meant them; what is not understood is left to the compiler's linker."""

import ctypes
import math

import numpy as np
import pytest

from diffai_stream import linker, native
from diffai_stream.jit import compile_object

pytestmark = pytest.mark.skipif(not linker.SUPPORTED, reason="only x86-64 Linux")
TABLE = np.arange(100, dtype=np.int64) ** 2


def compute(block):
    """A loop over a constant table, a call into the mathematics library, an early end."""
    total = 0
    for index in range(block[0]):
        total += TABLE[index]
    block[1] = total
    block[2] = np.int64(math.erf(block[0] * 1e-2) * 1e6)


@pytest.fixture(scope="module")
def compiled():
    return compile_object(compute)


def called(address, count):
    block = np.array([count, 0, 0], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(block.ctypes.data)
    return block.tolist()


def test_it_runs(compiled):
    address = linker.load(*compiled, native.UNREACHED)
    assert address is not None
    assert called(address, 100) == [100, int(TABLE.sum()), int(math.erf(1.0) * 1e6)]
    assert called(address, 3) == [3, 5, int(math.erf(0.03) * 1e6)]


def test_the_linker_of_the_compiler_gives_the_same(compiled, monkeypatch):
    monkeypatch.setattr(native, "load", lambda *_: None)
    assert called(native._linked(*compiled), 100) == called(linker.load(*compiled, native.UNREACHED), 100)


def test_every_entry_that_is_compiled_is_understood():
    stored = [native._stored(entry._path()) for entry in native.all_entries().values()]
    for found in filter(None, stored):
        assert linker.load(*found, native.UNREACHED)


def test_a_missing_symbol_is_left_to_the_linker(compiled):
    assert linker.load("missing", compiled[1], native.UNREACHED) is None


def test_a_missing_function_is_left_to_the_linker(compiled):
    symbol, code = compiled
    assert b"\0erf\0" in code
    assert linker.load(symbol, code.replace(b"\0erf\0", b"\0zzz\0"), native.UNREACHED) is None
    assert linker.load(symbol, code.replace(b"\0erf\0", b"\0zzz\0"), (*native.UNREACHED, "zzz"))


def test_another_machine_is_left_to_the_linker(compiled):
    symbol, code = compiled
    assert linker.load(symbol, code[:18] + (183).to_bytes(2, "little") + code[20:], native.UNREACHED) is None
    assert linker.load(symbol, code[:16] + (3).to_bytes(2, "little") + code[18:], native.UNREACHED) is None


def test_another_relocation_is_left_to_the_linker(compiled):
    symbol, code = compiled
    parsed = linker._parsed(code)
    table = next(s for s in parsed.sections if s.type == linker.SHT_RELA and parsed.names[s.info] != linker.UNWINDING)
    at = table.offset + 8
    assert code[at] == linker.R_X86_64_64
    assert linker.load(symbol, code[:at] + b"\2" + code[at + 1 :], native.UNREACHED) is None


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9, 0.99])
def test_what_is_cut_short_is_no_object_file(compiled, share):
    symbol, code = compiled
    assert linker.load(symbol, code[: int(len(code) * share)], native.UNREACHED) is None
