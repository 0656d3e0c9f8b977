"""Which file system a file lies on: one that another machine can shrink must not be mapped (a fault would kill us)."""

from __future__ import annotations

import os
from functools import lru_cache

NETWORK_TYPES = ("nfs", "cifs", "smb", "fuse", "9p", "lustre", "gpfs", "beegfs", "ceph", "afs", "glusterfs", "virtiofs")


@lru_cache(maxsize=1)
def _types_by_device() -> dict[str, str]:
    """`major:minor` -> file system type, from /proc/self/mountinfo; empty where that does not exist."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    return {line.split()[2]: line.partition(" - ")[2].split()[0] for line in lines if " - " in line}


def is_network_file(path: str) -> bool:
    """Whether the file lies on a network or FUSE file system. Raises OSError when the path cannot be read."""
    device = os.stat(path).st_dev
    kind = _types_by_device().get(f"{os.major(device)}:{os.minor(device)}", "")
    return kind.startswith(NETWORK_TYPES)
