"""Try every fault on large pairs, with other dice each round: python -m tests.faults --rounds 3

A finding names the seed that draws the same again: python -m tests.faults --only FAULT --seed SEED --rounds 1
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.faults.case import Fault, drawn
from tests.faults.catalogue import FAULTS
from tests.faults.pairs import LARGE, SMALL, Scale
from tests.faults.process import Finding, ImpossibleError


def tried(fault: Fault, seed: int, scale: Scale, folder: Path) -> tuple[str, str]:
    """What came of one case (survived, impossible, finding), and what is to be said of it."""
    try:
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            case = drawn(fault, seed, scale, folder / "pairs", Path(inside))
            return "survived", f"{case.pair.kind}: {fault.happen(case)}"
    except ImpossibleError as error:
        return "impossible", str(error)
    except Finding as finding:
        return "finding", str(finding)
    except Exception:
        return "finding", traceback.format_exc(limit=-6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="cases of each fault (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--only", action="append", choices=list(FAULTS), metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--small", action="store_true", help="on the small pairs of the tests")
    parser.add_argument("--folder", help="where pairs are written (default: a temporary one; 7 GB, 23 if there are 30 free)")
    chosen = parser.parse_args()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="faults-", dir=chosen.folder) as folder:
        for name in chosen.only or FAULTS:
            for seed in range(chosen.seed, chosen.seed + chosen.rounds):
                started = time.monotonic()
                outcome, told = tried(FAULTS[name], seed, SMALL if chosen.small else LARGE, Path(folder))
                outcomes[outcome] += 1
                print(f"{name:>20} --seed {seed:<4} {time.monotonic() - started:6.1f} s  {outcome}: {told}", flush=True)
    print(", ".join(f"{outcome} {count}" for outcome, count in outcomes.items()))
    return 1 if outcomes["finding"] else 0


if __name__ == "__main__":
    sys.exit(main())
