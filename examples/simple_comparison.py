"""The Python API in a dozen lines: `python examples/simple_comparison.py OLD NEW`.

Records come one after the other while the files are read, as the same dictionaries that the command prints.
"""

from __future__ import annotations

import sys

from diffai_stream import compare

for record in compare(sys.argv[1], sys.argv[2]):
    if record["type"] == "tensor" and record["change"] is not None:
        print(f"{record['name']:44} {record['status']:10} relative change {record['change']['relative_l2']}")
    elif record["type"] == "anomaly":
        print(f"{record['subject']:44} {record['severity']:10} {record['kind']}")
    elif record["type"] == "summary":
        print(f"{record['status']}: {record['counts']['changed']} tensors changed")
