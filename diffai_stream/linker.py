"""Object files into memory: what a linker does to them, as far as our compiled entries need it.

Loading a 180 MB compiler library only to place a few hundred KB of finished code took a tenth of the start of a run, and 45 MB.
numba compiles for the large code model, in which every reference is one absolute 64-bit address: place the sections, write
symbol + addend wherever a relocation says so, make the code executable. ELF for x86-64 (System V gABI, AMD64 psABI 4.4);
`load` answers None to anything else, and the compiler's own linker does it then.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import NamedTuple

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32
HEAD = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
ET_REL, EM_X86_64, R_X86_64_64 = 1, 62, 1
SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 2, 4, 8
SHF_WRITE, SHF_ALLOC = 1, 2
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
UNWINDING = b".eh_frame"  # no exception ever passes through our code
_ELF = struct.Struct("<16xHHI3QI6H")
_SECTION = struct.Struct("<II4QIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_kept: list[mmap.mmap] = []  # code is never unloaded


class UnsupportedError(Exception):
    """The object file has something that is not needed for our entries, so that it is not understood here."""


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class _Object(NamedTuple):
    """An object file: its bytes, its sections and their names."""

    data: bytes
    sections: list[_Section]
    names: list[bytes]

    def placed(self) -> Iterator[tuple[int, _Section]]:
        """Number and head of the sections that take memory, those that are written to last."""
        known = [(n, s) for n, s in enumerate(self.sections) if s.flags & SHF_ALLOC and self.names[n] != UNWINDING]
        yield from sorted(known, key=lambda item: item[1].flags & SHF_WRITE)


def load(symbol: str, data: bytes, unreached: Collection[str]) -> int | None:
    """Place an object file in memory; the address of a symbol, or None where that takes a real linker.

    Functions in `unreached` need not exist in this process: whoever calls one ends it.
    """
    if not SUPPORTED:
        return None
    try:
        return _load(symbol, data, unreached)
    except (UnsupportedError, struct.error, OSError, ValueError, IndexError):
        return None


def _load(symbol: str, data: bytes, unreached: Collection[str]) -> int:
    parsed = _parsed(data)
    offsets, constant, size = _layout(parsed)
    memory = mmap.mmap(-1, size)
    for number, section in parsed.placed():
        if section.type != SHT_NOBITS:
            start = offsets[number]
            memory[start : start + section.size] = data[section.offset : section.offset + section.size]
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    addresses = {number: base + offset for number, offset in offsets.items()}
    symbols = _relocated(parsed, memory, offsets, addresses, unreached)
    if symbol not in symbols:
        raise UnsupportedError(symbol)
    _make_executable(base, constant)
    _kept.append(memory)
    return symbols[symbol]


def _parsed(data: bytes) -> _Object:
    kind, machine, _, _, _, at, _, _, _, _, entry_size, count, names_at = _ELF.unpack_from(data)
    if not data.startswith(HEAD) or (kind, machine, entry_size) != (ET_REL, EM_X86_64, _SECTION.size):
        raise UnsupportedError("not an object file for x86-64")
    sections = [_Section(*_SECTION.unpack_from(data, at + n * entry_size)) for n in range(count)]
    start = sections[names_at].offset
    return _Object(data, sections, [_text(data, start + section.name) for section in sections])


def _text(data: bytes, start: int) -> bytes:
    return data[start : data.index(b"\0", start)]


def _layout(parsed: _Object) -> tuple[dict[int, int], int, int]:
    """Where each section goes, where the written ones begin (at a page), and the size of all."""
    offsets: dict[int, int] = {}
    position = constant = 0
    for number, section in parsed.placed():
        if section.flags & SHF_WRITE and not constant:
            position = constant = -(-position // mmap.PAGESIZE) * mmap.PAGESIZE
        align = max(1, section.align)
        if align > mmap.PAGESIZE:
            raise UnsupportedError("alignment")
        offsets[number] = position = -(-position // align) * align
        position += section.size
    return offsets, constant or position, max(position, 1)


def _relocated(
    parsed: _Object, memory: mmap.mmap, offsets: dict[int, int], addresses: dict[int, int], unreached: Collection[str]
) -> dict[str, int]:
    """Apply all relocations; the addresses of the symbols that the object defines."""
    table = next((s for s in parsed.sections if s.type == SHT_SYMTAB), None)
    if table is None:
        raise UnsupportedError("no symbols")
    names = parsed.sections[table.link].offset
    entries = list(_SYMBOL.iter_unpack(parsed.data[table.offset : table.offset + table.size]))
    values: dict[int, int] = {}

    def value(number: int) -> int:
        if number not in values:
            name, _, _, home, offset, _ = entries[number]
            text = _text(parsed.data, names + name).decode()
            values[number] = _external(text, text in unreached) if home == SHN_UNDEF else addresses[_checked(home)] + offset
        return values[number]

    for section in parsed.sections:
        if section.type == SHT_RELA and section.info in offsets:
            for at, info, addend in _RELA.iter_unpack(parsed.data[section.offset : section.offset + section.size]):
                if info & 0xFFFFFFFF != R_X86_64_64:
                    raise UnsupportedError(f"relocation {info & 0xFFFFFFFF}")
                struct.pack_into("<Q", memory, offsets[section.info] + at, (value(info >> 32) + addend) & 0xFFFFFFFFFFFFFFFF)
    return {
        _text(parsed.data, names + entry[0]).decode(): addresses[entry[3]] + entry[4]
        for entry in entries
        if entry[3] in addresses
    }


def _checked(home: int) -> int:
    if home >= SHN_LORESERVE:
        raise UnsupportedError("a symbol without a section")
    return home


@lru_cache(maxsize=256)
def _external(name: str, is_unreached: bool) -> int:
    """The address of a function of this process, of the C library or of its mathematics."""
    for library in (None, "libm.so.6"):
        found = getattr(ctypes.CDLL(library), name, None)
        if found is not None:
            return ctypes.cast(found, ctypes.c_void_p).value or 0
    if is_unreached:
        return _external("abort", False)
    raise UnsupportedError(name)


def _make_executable(base: int, nbytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(nbytes), mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
