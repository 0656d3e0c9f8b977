"""anomaly of the kind unsafe_pickle: names in a pickle that loading it would import, and that no weights need.

The comparison itself never imports them. A name of the interpreter's or the system's own machinery is critical: nothing that
saves weights needs one, and it is how a pickle runs a command. Other names are mostly classes of the program that saved it.
"""

from __future__ import annotations

from diffai_stream.analyses.base import Finding
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.inert import listed

KIND = "unsafe_pickle"
DANGEROUS = {
    *("os", "posix", "nt", "subprocess", "sys", "builtins", "importlib", "runpy", "pty", "socket", "shutil", "ctypes", "code"),
    *(
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "marshal",
        "shelve",
        "codeop",
        "webbrowser",
        "commands",
        "asyncio",
    ),
    *("multiprocessing", "threading", "signal", "operator", "functools", "types", "inspect", "timeit", "trace", "pdb", "bdb"),
    *("cProfile", "profile", "distutils", "setuptools", "pip", "urllib", "requests", "http", "httplib", "ssl", "tempfile"),
    *("copyreg", "torch.hub", "torch.jit", "torch.serialization", "torch.utils.bottleneck", "torch.utils.cpp_extension"),
    *("torch.utils.model_zoo", "torch._inductor", "torch._dynamo", "numpy.testing", "numpy.f2py", "numpy.distutils"),
}
_MAX_TOLD = 8


def finding(checkpoint: Checkpoint, side: str) -> Finding | None:
    """The finding about one checkpoint; None when its pickles name nothing unusual, or it has none."""
    names = checkpoint.unsafe_globals
    if not names:
        return None
    worst = [name for name in names if is_dangerous(name)]
    told = [*worst, *(name for name in names if name not in worst)]
    detail = f"loading it elsewhere would import {listed(told, _MAX_TOLD)}; nothing was imported here"
    fields = {"kind": KIND, "side": side, "value": None, "threshold": None, "count": len(names), "detail": detail}
    return Finding("model", "model", "measured", fields, "critical" if worst else "warning")


def is_dangerous(name: str) -> bool:
    """Whether a dotted name lies in a module that can run what it is given."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in DANGEROUS for count in range(1, len(parts)))
