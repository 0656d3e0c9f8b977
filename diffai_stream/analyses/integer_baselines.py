"""What rounding to integers costs normal weights, by width and group: the figures that a measured loss is held against.

Round to nearest of 4 Mi normal numbers in groups along a row, scale and zero point from the extremes of the group; for one
scale without zero point the largest magnitude becomes half the range of codes (compressed-tensors, GPTQ). dB, measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any

GROUPS = (32, 64, 128, 256, 512, 1024, 4096)
WITH_ZERO = {
    2: (7.8, 6.8, 6.0, 5.3, 4.7, 4.1, 3.3),
    3: (15.2, 14.2, 13.3, 12.6, 12.0, 11.4, 10.5),
    4: (21.9, 20.8, 20.0, 19.2, 18.6, 18.0, 17.1),
    5: (28.2, 27.1, 26.3, 25.5, 24.9, 24.3, 23.4),
    6: (34.3, 33.3, 32.4, 31.7, 31.0, 30.5, 29.6),
    7: (40.4, 39.4, 38.5, 37.8, 37.1, 36.6, 35.6),
    8: (46.5, 45.4, 44.6, 43.8, 43.2, 42.6, 41.7),
}
SYMMETRIC = {
    2: (6.5, 5.8, 5.2, 4.6, 4.1, 3.7, 3.0),
    3: (13.8, 13.1, 12.5, 11.9, 11.4, 10.9, 10.1),
    4: (20.5, 19.8, 19.1, 18.5, 18.0, 17.5, 16.7),
    5: (26.8, 26.1, 25.4, 24.8, 24.3, 23.8, 23.0),
    6: (32.9, 32.2, 31.6, 31.0, 30.4, 30.0, 29.1),
    7: (39.0, 38.3, 37.7, 37.1, 36.5, 36.0, 35.2),
    8: (45.1, 44.4, 43.7, 43.1, 42.6, 42.1, 41.3),
}


def integer_baseline(metadata: Mapping[str, str], components: Mapping[str, Any]) -> float | None:
    """The figure of an entry of integer codes, of the nearest group size; None for widths without one and whole matrices.

    An entry without zero points or biases counts as symmetric; GPTQ has zero points even where all are the middle.
    """
    bits = int(metadata.get("code_bits") or metadata.get("bits") or 0)
    size, rows = int(metadata.get("group_size") or 0), int(metadata.get("group_rows") or 1)
    is_symmetric = not ("zeros" in components or "biases" in components)
    table = SYMMETRIC if is_symmetric else WITH_ZERO
    if bits not in table or size <= 0 or rows != 1:
        return None
    nearest = min(range(len(GROUPS)), key=lambda i: abs(log2(GROUPS[i] / size)))
    return table[bits][nearest]
