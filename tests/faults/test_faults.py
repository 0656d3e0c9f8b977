"""A seeded part of what `make faults` does, on small pairs."""

import pytest

from tests.faults.case import drawn
from tests.faults.catalogue import FAULTS, ROOMS
from tests.faults.inputs import TOO_LATE
from tests.faults.judge import check_same, check_told
from tests.faults.pairs import KINDS, SMALL
from tests.faults.process import Ended, Finding, ImpossibleError, Running

SEEDS = {name: range(1) for name in FAULTS} | {"killed": range(2), "replaced-with-time": (1, 3), "clock": (0, 3, 6)}
ALWAYS_EARLY = ("file", "torch")  # kinds whose tensors are read in so many chunks that a change always comes between


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name in FAULTS for seed in SEEDS[name]])
def test_a_fault_is_survived(pairs, tmp_path, name, seed):
    case = drawn(FAULTS[name], seed, SMALL, pairs, tmp_path)
    try:
        told = FAULTS[name].happen(case)
    except ImpossibleError as error:
        pytest.skip(str(error))
    if name != "forbidden":
        assert told != TOO_LATE or case.pair.kind not in ALWAYS_EARLY


def test_names_are_not_taken_twice():
    assert len(FAULTS) == sum(len(room.FAULTS) for room in ROOMS)
    assert {kind for fault in FAULTS.values() for kind in fault.kinds} == set(KINDS)


@pytest.fixture
def case(pairs, tmp_path):
    return drawn(FAULTS["touched"], 0, SMALL, pairs, tmp_path)


def test_the_judge_notices_what_is_wrong(case):
    ended = case.run()
    check_same(ended, case.plain)
    lines = ended.out.splitlines(keepends=True)
    for wrong in (
        ended._replace(status=0),
        ended._replace(out=b"".join(lines[:-1])),
        ended._replace(out=b"".join([*lines[:3], *lines[4:]])),
        ended._replace(out=ended.out.replace(b'"status":"changed"', b'"status":"unchanged"', 1)),
    ):
        with pytest.raises(Finding):
            check_same(wrong, case.plain)
        with pytest.raises(Finding):
            check_told(wrong, case.plain, set(), set())


def test_what_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.faults.process.SECONDS", 0.5)
    with Running(["sleep", "60"], tmp_path) as process, pytest.raises(Finding, match="hung"):
        process.end()


def test_what_is_said_is_kept(tmp_path):
    with Running(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path) as process:
        assert process.read(1) == [b"out\n"]
        assert process.end() == Ended(3, b"out\n", "err\n")
