"""Every figure of every record against an independent computation in float64, for checkpoints that hypothesis draws."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoints import Declared, write_safetensors, write_sharded
from tests.models import DTYPES, array_of, cast, numbers
from tests.validation import of_type, run, tensors

ENCODINGS = sorted(DTYPES)
SHAPES = [(), (0,), (1,), (2, 0, 3), (5,), (33,), (4, 6), (3, 1, 5), (2, 2100)]
FATES = ["same", "same", "changed", "changed", "added", "removed", "reshaped", "retyped", "renamed"]
SPECIALS = [0.0, -0.0, math.nan, math.inf, -math.inf, 1.0, -3.0, 1e-30, 3e4]


class Case(NamedTuple):
    """One tensor of the pair, as it should be found."""

    name: str
    fate: str
    old: Declared | None
    new: Declared | None
    new_name: str


def drawn(draw, encoding: str, shape: tuple[int, ...], random: np.random.Generator) -> Declared:
    """Numbers that the encoding can hold, some of them odd."""
    values = random.normal(size=shape) * draw(st.sampled_from([1e-3, 1.0, 50.0]))
    flat = values.reshape(-1)
    for place in range(0, flat.size, max(1, flat.size // 4)):
        flat[place] = draw(st.sampled_from(SPECIALS))
    if encoding[0] in "IUB":
        flat[~np.isfinite(flat)] = 0
        flat[:] = np.clip(np.rint(flat), 0 if encoding[0] == "U" else -128, 1 if encoding == "BOOL" else 120)
    if encoding == "F8_E8M0":
        flat[:] = np.exp2(np.rint(np.clip(np.nan_to_num(flat, posinf=2, neginf=-2), -8, 8)))
    return cast(flat.reshape(shape), encoding)


def nudged(draw, tensor: Declared, random: np.random.Generator) -> Declared:
    """Some elements moved by one code."""
    encoding, shape, raw = tensor
    codes = np.frombuffer(raw, np.uint8).copy()
    width = np.dtype(DTYPES[encoding]).itemsize
    for place in random.integers(0, max(1, codes.size // width), draw(st.integers(1, 4))) if codes.size else ():
        codes[place * width] ^= 1
    return encoding, shape, codes.tobytes()


@st.composite
def cases(draw) -> list[Case]:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = []
    for number in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(["model.layers.{}.mlp.up_proj.weight", "model.layers.{}.norm.weight", "top{}.x"])).format(
            number
        )
        fate, encoding = draw(st.sampled_from(FATES)), draw(st.sampled_from(ENCODINGS))
        shape = draw(st.sampled_from(SHAPES))
        old = drawn(draw, encoding, shape, random)
        new, new_name = old, name
        if fate == "changed":
            new = nudged(draw, old, random)
        elif fate == "reshaped":
            new = drawn(draw, encoding, (*shape, 2), random)
        elif fate == "retyped":
            new = drawn(draw, draw(st.sampled_from(ENCODINGS)), shape, random)
        elif fate == "renamed":
            new_name = f"module.{name}"
        found.append(Case(name, fate, None if fate == "added" else old, None if fate == "removed" else new, new_name))
    return found


def close(found, expected, scale=1.0):
    """Equal, or within the accuracy that the records promise; nothing to say is None on both sides."""
    if expected is None or found is None:
        return found is expected
    return found == expected or math.isclose(found, expected, rel_tol=2e-6, abs_tol=2e-6 * scale)


def side(tensor: Declared) -> dict:
    """What `stats.old` should say."""
    x = numbers(tensor).reshape(-1)
    return figures(x)


def figures(x: np.ndarray) -> dict:
    f = x[np.isfinite(x)]
    counts = {"zero_count": (x == 0).sum(), "nan_count": np.isnan(x).sum()}
    counts |= {"posinf_count": (x == np.inf).sum(), "neginf_count": (x == -np.inf).sum()}
    if not f.size:
        return {**dict.fromkeys(("mean", "std", "min", "max", "abs_max")), "l2_norm": 0.0, **counts}
    mean = math.fsum(f) / f.size
    std = math.sqrt(math.fsum((f - mean) ** 2) / f.size)
    range_ = {"min": f.min(), "max": f.max(), "abs_max": abs(f).max()}
    return {"mean": mean, "std": std, **range_, "l2_norm": math.sqrt(math.fsum(f * f)), **counts}


def unequal(old: Declared, new: Declared) -> np.ndarray:
    """Which values differ: NaN equals NaN, -0 equals +0, 64-bit integers are compared as integers."""
    if {old[0], new[0]} <= {"I64", "U64"}:
        a, b = array_of(old).reshape(-1).tolist(), array_of(new).reshape(-1).tolist()
        return np.array([x != y for x, y in zip(a, b, strict=True)], bool)
    a, b = numbers(old).reshape(-1), numbers(new).reshape(-1)
    return (a != b) & ~(np.isnan(a) & np.isnan(b))


def change(old: Declared, new: Declared) -> dict:
    """What `change` should say."""
    a, b, differ = numbers(old), numbers(new), unequal(old, new)
    x, y = a.reshape(-1), b.reshape(-1)
    finite = np.isfinite(x) & np.isfinite(y)
    distance = np.where(finite, abs(np.where(finite, y, 0) - np.where(finite, x, 0)), -1.0)
    x, y = x[finite], y[finite]
    d, (o2, n2, d2, dot) = y - x, (math.fsum(p) for p in (x * x, y * y, (y - x) ** 2, x * y))
    top = distance.max() if x.size else None
    both = o2 > 0 and n2 > 0
    return {
        "changed_count": differ.sum(),
        "changed_ratio": differ.sum() / a.size if a.size else None,
        "sign_flip_count": ((x < 0) & (y > 0)).sum() + ((x > 0) & (y < 0)).sum(),
        "l2_norm": math.sqrt(d2),
        "relative_l2": math.sqrt(d2 / o2) if o2 > 0 else None,
        "cosine_similarity": dot / math.sqrt(o2) / math.sqrt(n2) if both else None,
        "cosine_distance": max(0, 1 - dot / math.sqrt(o2) / math.sqrt(n2)) if both else None,
        "sqnr_db": 10 * math.log10(o2 / d2) if o2 > 0 and d2 > 0 else None,
        "max_abs": top,
        "max_abs_index": [int(i) for i in np.unravel_index(int(distance.argmax()), a.shape)] if top else None,
        "mean_abs": math.fsum(abs(d)) / d.size if d.size else None,
    }


def status(case: Case) -> str:
    if case.old is None or case.new is None:
        return "added" if case.old is None else "removed"
    if numbers(case.old).shape != numbers(case.new).shape:
        return "reshaped"
    if unequal(case.old, case.new).any():
        return "changed"
    return "retyped" if case.old[0] != case.new[0] else "unchanged"


def wrong(record: dict, case: Case) -> list[str]:
    """The fields of a tensor record that are not what they should be."""
    bad = []
    for name, tensor in (("old", case.old), ("new", case.new)):
        stats = record["stats"][name]
        if tensor is None:
            bad += [f"stats.{name}"] if stats is not None or record[name] is not None else []
            continue
        expected = side(tensor)
        scale = expected["l2_norm"] / math.sqrt(max(1, numbers(tensor).size))
        bad += [f"{name}.{key}" for key, value in expected.items() if not close(stats[key], value, scale)]
        told = record[name]
        if (told["encoding"], told["shape"], told["stored_nbytes"]) != (tensor[0], list(tensor[1]), len(tensor[2])):
            bad.append(name)
    if case.old is None or case.new is None or numbers(case.old).shape != numbers(case.new).shape:
        return bad + (["change"] if record["change"] is not None or record["stats"]["delta"] is not None else [])
    expected = change(case.old, case.new)
    bad += [f"change.{key}" for key, value in expected.items() if not same(record["change"][key], value, key)]
    with np.errstate(invalid="ignore"):
        delta = figures((numbers(case.new) - numbers(case.old)).reshape(-1))
    scale = delta["l2_norm"]
    return bad + [f"delta.{key}" for key, value in delta.items() if not close(record["stats"]["delta"][key], value, scale)]


def same(found, expected, key: str) -> bool:
    if key == "max_abs_index":
        return found == expected
    return close(found, expected, {"cosine_similarity": 1.0, "cosine_distance": 1.0, "sqnr_db": 10.0}.get(key, 0.0))


def written(folder, side_index: int, found: list[Case], is_sharded: bool):
    """One side of the cases as a file or as a directory of two shards."""
    content = {}
    for case in found:
        tensor = case.new if side_index else case.old
        if tensor is not None:
            content[case.new_name if side_index else case.name] = tensor
    stem = ("old", "new")[side_index]
    if not is_sharded:
        return write_safetensors(folder / f"{stem}.safetensors", content)
    names = sorted(content)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    shards = {f"model-0000{i + 1}-of-00002.safetensors": {n: content[n] for n in half} for i, half in enumerate(halves)}
    return write_sharded(folder / stem, shards)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=cases(), old_sharded=st.booleans(), new_sharded=st.booleans(), workers=st.sampled_from([1, 2]))
def test_every_figure(tmp_path_factory, found, old_sharded, new_sharded, workers):
    names = {case.name: case for case in found}
    found = list(names.values())
    folder = tmp_path_factory.mktemp("case")
    paths = written(folder, 0, found, old_sharded), written(folder, 1, found, new_sharded)
    records = run(*paths, include_unchanged=True, workers=workers)
    told = tensors(records)
    renamed = {case.name for case in found if case.fate == "renamed"}
    by_name = {case.new_name if case.old is None else case.name: case for case in found}
    pairless = [case for case in found if case.old is None or case.new is None]
    if len(told) == len(found):  # else an added tensor was recognised as a removed one: equal bytes under another name
        assert {name: record["status"] for name, record in told.items()} == {n: status(c) for n, c in by_name.items()}
        assert {name: bad for name, case in by_name.items() if (bad := wrong(told[name], case))} == {}
        assert {name for name, record in told.items() if record["match"] != "exact"} == renamed
        check_model(records, found)
    else:
        assert len(pairless) >= 2


def check_model(records, found):
    """layer_impact and summary, from the cases."""
    pairs = [case for case in found if case.old and case.new and numbers(case.old).shape == numbers(case.new).shape]
    sums = {case.name: squares(case) for case in pairs}
    layers: dict[str, list[str]] = {}
    for record in of_type(records, "tensor"):
        if record["name"] in sums:
            layers.setdefault(record["layer"], []).append(record["name"])
    expected = {layer: relative([sums[name] for name in names]) for layer, names in layers.items()}
    impacts = [r for r in of_type(records, "layer_impact") if r["scope"] == "layer" and r["subject"] in expected]
    assert {r["subject"] for r in impacts} == expected.keys()
    assert all(close(r["relative_l2"], expected[r["subject"]]) for r in impacts)
    ranking = [row for r in of_type(records, "layer_impact") if r["scope"] == "model" for row in r["ranking"]]
    assert [row["layer"] for row in ranking] == sorted(
        expected, key=lambda layer: (expected[layer] is None, -(round(expected[layer] or 0, 9)), layer)
    ) or all(close(row["relative_l2"], expected[row["layer"]]) for row in ranking)
    ratios = [row["energy_ratio"] for row in ranking if row["energy_ratio"] is not None]
    assert not ratios or math.isclose(sum(ratios), 1, rel_tol=1e-6)
    summary = records[-1]
    statuses = [status(case) for case in found]
    assert {k: v for k, v in summary["counts"].items() if v and k != "renamed"} == {s: statuses.count(s) for s in set(statuses)}
    assert summary["counts"]["renamed"] == sum(case.fate == "renamed" for case in found)
    assert close(summary["relative_l2"], relative(list(sums.values())))
    assert summary["parameter_count"]["changed"] == sum(unequal(case.old, case.new).sum() for case in pairs)
    is_different = set(statuses) - {"unchanged", "retyped"}
    assert (summary["exit_status"], summary["status"] == "different") == (int(bool(is_different)), bool(is_different))
    if not is_different:
        assert summary["status"] == ("equivalent" if summary["differs_in"] else "identical")
    assert ("encoding" in summary["differs_in"]) == any(case.old[0] != case.new[0] for case in found if case.old and case.new)


def squares(case: Case) -> tuple[float, float]:
    x, y = numbers(case.old).reshape(-1), numbers(case.new).reshape(-1)
    finite = np.isfinite(x) & np.isfinite(y)
    return math.fsum((y[finite] - x[finite]) ** 2), math.fsum(x[finite] ** 2)


def relative(sums: list[tuple[float, float]]) -> float | None:
    old = math.fsum(o for _, o in sums)
    return math.sqrt(math.fsum(d for d, _ in sums) / old) if old > 0 else None


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_encoding_against_itself_and_a_changed_copy(tmp_path, encoding):
    random = np.random.default_rng(1)
    old = cast(np.clip(np.rint(random.normal(size=(37, 41)) * 3), 0, 7), encoding)
    new = cast(np.clip(np.rint(random.normal(size=(37, 41)) * 3), 0, 7), encoding)
    case = Case("x.weight", "changed", old, new, "x.weight")
    paths = [write_safetensors(tmp_path / f"{n}.safetensors", {"x.weight": t}) for n, t in (("a", old), ("b", new))]
    assert wrong(tensors(run(*paths))["x.weight"], case) == []
