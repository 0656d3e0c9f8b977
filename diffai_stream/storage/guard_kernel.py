"""The signal handler of `guard.py`, compiled: it maps a page of zeros where a read went past the end of a file."""

from __future__ import annotations

import mmap as _mmap
import signal

import numpy as np

from diffai_stream.jit import carray, types

PAGE = _mmap.PAGESIZE
SIGBUS = int(signal.SIGBUS)
BUS_ADRERR = 2  # the only reason that is a missing page of a file
CODE, ADDRESS = 2, 4  # places of si_code and si_addr in siginfo_t, counted in int32
PROT_READ, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 16, 32  # of Linux

mmap = types.ExternalFunction("mmap", types.intp(types.intp, types.uintp, types.int32, types.int32, types.int32, types.intp))
default = types.ExternalFunction("signal", types.intp(types.int32, types.intp))


def cover_page(number, info, context):
    """Handle one SIGBUS: cover the page, or give the signal back to the system, which then ends the process."""
    words = carray(info, (8,), np.int32)
    address = carray(info, (4,), np.int64)[ADDRESS // 2]
    page = address - address % PAGE
    covered = -1
    if words[CODE] == BUS_ADRERR:
        covered = mmap(page, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0)
    if covered != page:
        default(SIGBUS, 0)


cover_page.signature = types.void(types.int32, types.voidptr, types.voidptr)  # type: ignore[attr-defined]
