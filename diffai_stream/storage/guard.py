"""A guard for mapped files: when one shrinks while it is read, the process goes on instead of being killed.

Reading a mapped page that lies past the end of its file raises SIGBUS, which by default ends the process without a word.
The guard answers it by mapping a page of zeros over that address, so that the loop that was reading finishes; the check of
size and time that follows every chunk then reports the tensor as unreadable. The handler is compiled code that makes one
system call, as a signal handler may. Linux on x86-64 and arm64; elsewhere files are read instead of mapped.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import sys
from functools import lru_cache

from diffai_stream.native import Entry

SUPPORTED = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
SA_SIGINFO, SA_NODEFER = 4, 0x40000000


class _SigAction(ctypes.Structure):
    """struct sigaction of glibc: handler, mask of 1,024 bits, flags, restorer."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_entry = Entry("diffai_stream.storage.guard_kernel", "cover_page")


@lru_cache(maxsize=1)
def install() -> bool:
    """Install the guard once in this process; False where it is not supported, or where someone else handles SIGBUS."""
    if not SUPPORTED or signal.getsignal(signal.SIGBUS) not in (signal.SIG_DFL, None):
        return False
    action = _SigAction(handler=_entry.address(), flags=SA_SIGINFO | SA_NODEFER)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.sigaction(int(signal.SIGBUS), ctypes.byref(action), None) == 0)
