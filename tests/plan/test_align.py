"""Alignment: every step that pairs names, what it must not pair, plan order, identity without reading, selection."""

from __future__ import annotations

import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffai_stream.errors import UsageError
from diffai_stream.formats.base import Checkpoint, Component, TensorEntry
from diffai_stream.plan.align import LARGE_NUMEL, align, read_range, select
from diffai_stream.storage.extent import Extent, FileStamp

ITEMSIZE = {"F32": 4, "BF16": 2, "U8": 1}


def entry(name, shape=(2, 8), encoding="F32", path="/none", offset=0, *, strides=None, codec="", metadata=None):
    nbytes = ITEMSIZE[encoding]
    for size in shape:
        nbytes *= size
    data = Component((Extent(path, offset, nbytes, codec),), encoding, shape, strides)
    return TensorEntry(name, shape, encoding, {"data": data}, metadata or {})


def checkpoint(*entries, aliases=None, identities=None):
    paths = {extent.path for item in entries for part in item.components.values() for extent in part.extents}
    stamps = {path: FileStamp.of(path) if os.path.exists(path) else FileStamp(path, 1, 1, (0, 0)) for path in sorted(paths)}
    return Checkpoint("given", "test", tuple(entries), {}, stamps, aliases=aliases or {}, identities=identities or {})


def named(*names, path="/old", **more):
    return checkpoint(*(entry(name, path=path) for name in names), **more)


def write(path, tensors):
    """A checkpoint of one file: {name: bytes} as U8 or {name: (shape, encoding, bytes)}, laid end to end."""
    entries, offset = [], 0
    with open(path, "wb") as file:
        for name, value in tensors.items():
            shape, encoding, data = value if isinstance(value, tuple) else ((len(value),), "U8", value)
            entries.append(entry(name, shape, encoding, str(path), offset))
            offset += file.write(data)
    return checkpoint(*entries)


def content(seed, nbytes=100):
    return random.Random(seed).randbytes(nbytes)


def told(alignment):
    return [
        (pair.name, pair.old and pair.old.name, pair.new and pair.new.name, pair.match, pair.status) for pair in alignment.pairs
    ]


def unread(path, offset, nbytes):
    raise AssertionError(f"read {nbytes} bytes of {path} at {offset}")


# exact names


def test_equal_names_pair_exactly_and_the_rest_is_removed_or_added():
    alignment = align(named("a", "b", "c"), named("c", "d", "a", path="/new"), read=lambda *_: os.urandom(64))
    assert told(alignment) == [
        ("a", "a", "a", "exact", "paired"),
        ("b", "b", None, "exact", "removed"),
        ("c", "c", "c", "exact", "paired"),
        ("d", None, "d", "exact", "added"),
    ]
    assert [pair.index for pair in alignment.pairs] == [0, 1, 2, 3]
    assert not any(pair.identical for pair in alignment.pairs)


def test_another_shape_is_reshaped_and_another_encoding_is_not():
    old = checkpoint(entry("a", (2, 8)), entry("b", (2, 8)), entry("c", (2, 8)))
    new = checkpoint(entry("a", (8, 2)), entry("b", (2, 8), "BF16"), entry("c", (3, 8), "BF16"))
    assert [pair.status for pair in align(old, new).pairs] == ["reshaped", "paired", "reshaped"]


def test_a_pair_knows_its_place_and_sides():
    first, second = align(named("model.layers.3.mlp.up_proj.weight"), named("b"), read=lambda *_: b"").pairs
    assert (first.layer, first.role) == ("model.layers.3", "mlp.up_proj")
    assert [item.name for item in first.entries + second.entries] == ["model.layers.3.mlp.up_proj.weight", "b"]
    assert first.numel == 16


def test_empty_checkpoints_have_no_pairs():
    assert align(named(), named()) == ((), ())


# rules


@pytest.mark.parametrize(
    ("rule", "old_name", "new_name"),
    [
        (("a", "b"), "a", "b"),
        (("enc.*.weight", "e.*.w"), "enc.3.weight", "e.3.w"),
        (("x.*.y.*", "*.z.*"), "x.1.y.2", "1.z.2"),
        (("*", "new.*"), "a.b", "new.a.b"),
        (("a.+(*)", "b[*]"), "a.+(7)", "b[7]"),
    ],
)
def test_a_rule_renames(rule, old_name, new_name):
    alignment = align(named(old_name), named(new_name), [rule], unread)
    assert told(alignment) == [(old_name, old_name, new_name, "renamed", "paired")]


@pytest.mark.parametrize("rule", [("q", "b"), ("a", "q"), ("q.*", "b.*"), ("same", "b")])
def test_a_rule_that_matches_nothing_is_named(rule):
    with pytest.raises(UsageError, match=f"{rule[0].replace('*', '[*]')}="):
        align(named("a", "same"), named("b", "same"), [rule])


def test_a_rule_needs_as_many_stars_on_both_sides():
    with pytest.raises(UsageError, match="on both sides"):
        align(named("a.1.b.2"), named("b.1"), [("a.*.b.*", "b.*")])


def test_rules_come_before_prefixes_and_after_exact_names():
    alignment = align(named("module.a", "b"), named("a", "b", "c"), [("module.a", "c")], unread)
    assert [(pair.name, pair.new.name, pair.match) for pair in alignment.pairs if pair.new] == [
        ("module.a", "c", "renamed"),
        ("b", "b", "exact"),
        ("a", "a", "exact"),
    ]


# prefixes


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "base_model.model.", "module._orig_mod.", "base_model.model.model."]
)
def test_wrapper_prefixes_are_stripped_from_either_side(prefix):
    plain, wrapped = ("layers.0.weight", "norm.bias"), (f"{prefix}layers.0.weight", f"{prefix}norm.bias")
    for old, new in ((plain, wrapped), (wrapped, plain)):
        alignment = align(named(*old), named(*new), read=unread)
        assert [(pair.old.name, pair.new.name, pair.match) for pair in alignment.pairs] == [
            (old_name, new_name, "renamed") for old_name, new_name in zip(old, new, strict=True)
        ]


def test_both_sides_may_be_wrapped_differently():
    assert told(align(named("module.a"), named("_orig_mod.model.a"))) == [
        ("module.a", "module.a", "_orig_mod.model.a", "renamed", "paired")
    ]


def test_prefixes_that_make_names_equal_are_left_alone():
    alignment = align(named("module.a", "model.a"), named("a"), read=lambda *_: os.urandom(8))
    assert sorted(pair.status for pair in alignment.pairs) == ["added", "removed", "removed"]


# tied weights


def test_an_alias_is_paired_with_the_tensor_it_is_tied_to():
    both = named("embed.weight", "lm_head.weight")
    one = named("embed.weight", aliases={"lm_head.weight": "embed.weight"})
    assert told(align(both, one, read=unread))[1] == ("lm_head.weight", "lm_head.weight", "embed.weight", "tied", "paired")
    assert told(align(one, both, read=unread))[1] == ("lm_head.weight", "embed.weight", "lm_head.weight", "tied", "paired")


def test_aliases_may_be_chained_and_even_circular():
    one = named("a", aliases={"c": "b", "b": "a", "x": "y", "y": "x"})
    assert told(align(named("a", "c", "x"), one))[1:] == [
        ("c", "c", "a", "tied", "paired"),
        ("x", "x", None, "exact", "removed"),
    ]


def test_two_sides_that_store_the_two_names_of_one_tensor():
    old = named("embed.weight", aliases={"lm_head.weight": "embed.weight"})
    new = named("lm_head.weight", aliases={"embed.weight": "lm_head.weight"})
    assert [(pair.match, pair.status) for pair in align(old, new, read=unread).pairs] == [("tied", "paired")]


@pytest.mark.parametrize(
    ("embedding", "head"),
    [
        ("model.embed_tokens.weight", "lm_head.weight"),
        ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("token_embd.weight", "output.weight"),
        ("transformer.wte.weight", "lm_head.weight"),
    ],
)
def test_a_head_on_one_side_only_is_the_embedding_of_the_other(embedding, head):
    both, one = named(embedding, head), named(embedding)
    assert told(align(both, one))[1] == (head, head, embedding, "tied", "paired")
    assert (head, embedding, head, "tied", "paired") in told(align(one, both))


@pytest.mark.parametrize(
    "head",
    [
        entry("lm_head.weight", (4, 8)),
        entry("lm_head.weight", (2, 8), "BF16"),
        entry("lm_head.bias"),
        entry("classifier.weight"),
    ],
)
def test_a_head_that_cannot_be_the_embedding_is_added(head):
    embedding = entry("model.embed_tokens.weight")
    assert [pair.status for pair in align(checkpoint(embedding), checkpoint(embedding, head)).pairs] == ["paired", "added"]


def test_a_head_under_another_name_is_renamed_not_tied():
    old = named("model.embed_tokens.weight", "lm_head.weight")
    new = named("model.embed_tokens.weight", "output.weight")
    alignment = align(old, new, read=lambda *_: os.urandom(64))
    assert [(pair.status, pair.match) for pair in alignment.pairs] == [("paired", "exact"), ("paired", "renamed")]


# samples


def test_renamed_tensors_are_found_by_their_bytes(tmp_path):
    blobs = {"small": content(1), "whole": content(2, 32 << 10), "sampled": content(3, 100_000)}
    old = write(tmp_path / "old", blobs)
    new = write(tmp_path / "new", {f"x.{name}": blobs[name] for name in ("sampled", "small", "whole")})
    alignment = align(old, new)
    assert told(alignment) == [(name, name, f"x.{name}", "renamed", "paired") for name in blobs]
    assert alignment.oddities == ()


def test_a_large_tensor_is_sampled_in_eight_windows(tmp_path):
    calls = []

    def counted(path, offset, nbytes):
        calls.append((path, offset, nbytes))
        return read_range(path, offset, nbytes)

    align(
        write(tmp_path / "old", {"a": content(1, 1 << 20)}), write(tmp_path / "new", {"b": content(1, 1 << 20)}), read=counted
    )
    assert len(calls) == 16
    assert {nbytes for _, _, nbytes in calls} == {4096}
    assert [call[1:] for call in calls[:8]] == [call[1:] for call in calls[8:]]


def test_nothing_is_read_when_one_side_has_no_names_left():
    align(named("a", "b"), named("a"), read=unread)


def test_nothing_is_read_of_tensors_without_a_counterpart_of_their_shape():
    align(named("a"), checkpoint(entry("b", (3, 3))), read=unread)


def test_equal_bytes_in_another_encoding_or_shape_are_another_tensor(tmp_path):
    data = content(1, 64)
    old = write(tmp_path / "old", {"a": ((4, 4), "F32", data)})
    for shape, encoding in (((2, 8), "F32"), ((4, 8), "BF16")):
        assert len(align(old, write(tmp_path / "new", {"b": (shape, encoding, data)})).pairs) == 2


def test_a_tensor_over_several_extents_equals_one_in_a_single_piece(tmp_path):
    data = content(5, 200_000)
    whole = write(tmp_path / "whole", {"a": data})
    pieces = write(tmp_path / "pieces", {"x": content(6, 3), "one": data[:150_001], "two": data[150_001:]})
    extents = tuple(piece.components["data"].extents[0] for piece in pieces.tensors[1:])
    split = checkpoint(TensorEntry("b", (200_000,), "U8", {"data": Component(extents, "U8", (200_000,))}))
    assert [pair.match for pair in align(whole, split).pairs] == ["renamed"]


def test_as_many_equal_tensors_on_both_sides_pair_in_natural_order(tmp_path):
    data = content(1)
    old = write(tmp_path / "old", {f"old.{index}.w": data for index in (10, 9, 2)})
    new = write(tmp_path / "new", {f"new.{index}.w": data for index in (2, 10, 9)})
    assert {(pair.old.name[4:], pair.new.name[4:]) for pair in align(old, new).pairs} == {
        ("2.w", "2.w"),
        ("9.w", "9.w"),
        ("10.w", "10.w"),
    }


def test_unequal_counts_of_equal_tensors_stay_apart_and_are_told(tmp_path):
    data = content(1)
    alignment = align(write(tmp_path / "old", {"a": data, "b": data}), write(tmp_path / "new", {"c": data}))
    assert [pair.status for pair in alignment.pairs] == ["removed", "removed", "added"]
    assert [(oddity.code, oddity.tensor) for oddity in alignment.oddities] == [("ambiguous_rename", "a")]


@pytest.mark.parametrize("value", [b"\0\0\0\0", b"\0\0\x80\x3f"])
@pytest.mark.parametrize("numel", [1, 100, 40_000])
def test_constant_tensors_pair_only_when_the_last_component_is_equal(tmp_path, value, numel):
    constant = ((numel,), "F32", value * numel)
    old = write(tmp_path / "old", {"a.bias": constant})
    assert [pair.match for pair in align(old, write(tmp_path / "new", {"b.bias": constant})).pairs] == ["renamed"]
    alignment = align(old, write(tmp_path / "new", {"b.weight": constant}))
    assert [pair.status for pair in alignment.pairs] == ["removed", "added"]
    assert alignment.oddities == ()


def test_compressed_and_strided_tensors_are_not_sampled():
    for more in ({"codec": "zlib"}, {"strides": (1, 2)}):
        assert len(align(checkpoint(entry("a", **more)), checkpoint(entry("b", **more)), read=unread).pairs) == 2


def test_unreadable_and_short_files_leave_their_tensors_unmatched(tmp_path):
    old = write(tmp_path / "old", {"a": content(1), "b": content(2)})
    new = write(tmp_path / "new", {"c": content(1), "d": content(2)})
    os.truncate(tmp_path / "new", 150)
    assert [pair.status for pair in align(old, new).pairs] == ["paired", "removed", "added"]
    os.remove(tmp_path / "new")
    assert [pair.status for pair in align(old, new).pairs] == ["removed", "removed", "added", "added"]


# plan order


def test_plan_order_is_the_old_files_order_with_large_tensors_last_in_each():
    huge = (LARGE_NUMEL + 1,)
    old = checkpoint(
        entry("f1.huge", huge, path="/f1"),
        entry("f1.a", path="/f1"),
        entry("f2.a", path="/f2"),
        entry("f1.limit", (LARGE_NUMEL,), path="/f1"),
        entry("f2.huge", huge, path="/f2"),
        entry("f2.b", path="/f2"),
    )
    new = checkpoint(
        entry("n.huge", huge, path="/g"), entry("n.b", (1,), path="/g"), *old.tensors[::-1], entry("n.a", (3,), path="/h")
    )
    order = ["f1.a", "f1.limit", "f1.huge", "f2.a", "f2.b", "f2.huge", "n.b", "n.huge", "n.a"]
    pairs = align(old, new).pairs
    assert [pair.name for pair in pairs] == order
    assert [pair.index for pair in pairs] == list(range(len(order)))


# identity


def test_a_file_beside_itself_is_identical_however_it_is_named(tmp_path):
    blobs = {"a": content(1), "b": content(2)}
    old = write(tmp_path / "old", blobs)
    os.link(tmp_path / "old", tmp_path / "hard")
    os.symlink(tmp_path / "old", tmp_path / "soft")
    for name in ("old", "hard", "soft"):
        path = str(tmp_path / name)
        new = checkpoint(entry("a", (100,), "U8", path), entry("b", (100,), "U8", path, 100))
        assert [pair.identical for pair in align(old, new, read=unread).pairs] == [True, True]


def test_a_copy_is_not_known_to_be_identical(tmp_path):
    old, new = write(tmp_path / "old", {"a": content(1)}), write(tmp_path / "new", {"a": content(1)})
    assert [pair.identical for pair in align(old, new).pairs] == [False]


def test_blobs_of_one_content_name_are_identical(tmp_path):
    sides = []
    for cache, name in (("c1", "sha"), ("c2", "sha"), ("c3", "other")):
        (tmp_path / cache / "blobs").mkdir(parents=True)
        blob, link = tmp_path / cache / "blobs" / name, tmp_path / cache / "model"
        blob.write_bytes(content(1))
        os.symlink(blob, link)
        sides.append(checkpoint(entry("a", (100,), "U8", str(link)), identities={str(link): name}))
    first, second, third = sides
    assert [pair.identical for pair in align(first, second).pairs] == [True]
    assert [pair.identical for pair in align(first, third).pairs] == [False]
    assert [pair.identical for pair in align(first, third._replace(identities={})).pairs] == [False]


def test_a_file_that_changed_between_the_two_indexes_is_not_identical(tmp_path):
    old = write(tmp_path / "f", {"a": content(1)})
    new = old._replace(stamps={path: stamp._replace(mtime_ns=1) for path, stamp in old.stamps.items()})
    assert [pair.identical for pair in align(old, new).pairs] == [False]


@pytest.mark.parametrize(
    "other",
    [
        entry("a", (8, 2)),
        entry("a", offset=64),
        entry("a", strides=(1, 2)),
        entry("a", codec="zlib"),
        entry("a", (2, 16), "BF16"),
        entry("a", metadata={"group_size": "32"}),
        entry("a")._replace(components={}),
        entry("a")._replace(components=entry("a").components | {"scales": Component((), "F32", (1,))}),
    ],
)
def test_the_same_file_read_in_another_way_is_not_identical(other):
    old = checkpoint(entry("a"))
    new = checkpoint(other)._replace(stamps=old.stamps)
    assert [pair.identical for pair in align(old, new).pairs] == [False]


def test_remote_paths_are_identical_by_their_address():
    for path, identical in (("s3://bucket/model", True), ("s3://bucket/other", False)):
        old, new = checkpoint(entry("a", path="s3://bucket/model")), checkpoint(entry("a", path=path))
        assert [pair.identical for pair in align(old, new).pairs] == [identical]


# selection

LAYERS = align(*(named("layers.0.q.weight", "layers.0.k.weight", "layers.1.q.weight", "Norm.weight"),) * 2).pairs


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ([], [], ["layers.0.q.weight", "layers.0.k.weight", "layers.1.q.weight", "Norm.weight"]),
        (["*.q.*"], [], ["layers.0.q.weight", "layers.1.q.weight"]),
        (["layers.0"], [], ["layers.0.q.weight", "layers.0.k.weight"]),
        (["layers.[1-9]*", "Norm*"], [], ["layers.1.q.weight", "Norm.weight"]),
        ([], ["layers.?"], ["Norm.weight"]),
        (["layers.0"], ["*.k.*"], ["layers.0.q.weight"]),
        (["*.k.*"], ["layers.0"], []),
    ],
)
def test_select(include, exclude, names):
    chosen = select(LAYERS, include, exclude)
    assert [pair.name for pair in chosen] == names
    assert [pair.index for pair in chosen] == list(range(len(names)))


@pytest.mark.parametrize(
    ("include", "exclude"), [(["norm.weight"], []), ([], ["norm.weight"]), (["layers.0", "norm.weight"], [])]
)
def test_a_pattern_that_matches_nothing_suggests_the_nearest_names(include, exclude):
    with pytest.raises(UsageError, match=r"'norm\.weight' matches no tensor and no layer; the nearest names are Norm\.weight"):
        select(LAYERS, include, exclude)


# laws

NAMES = st.lists(st.text("abc.01", min_size=1, max_size=8), unique=True, max_size=12)


@given(NAMES)
def test_a_checkpoint_beside_itself_pairs_exactly(names):
    old = named(*names)
    pairs = align(old, old, read=unread).pairs
    assert [(pair.name, pair.match, pair.status, pair.identical) for pair in pairs] == [
        (name, "exact", "paired", True) for name in names
    ]


@given(NAMES, NAMES)
def test_swapping_the_sides_swaps_added_and_removed(old_names, new_names):
    def outcome(old, new):
        pairs = align(old, new, read=lambda *_: os.urandom(64)).pairs
        return {(pair.old and pair.old.name, pair.new and pair.new.name) for pair in pairs}, sorted(
            pair.status for pair in pairs
        )

    old, new = named(*old_names), named(*new_names, path="/new")
    forth, back = outcome(old, new), outcome(new, old)
    assert forth[0] == {(left, right) for right, left in back[0]}
    assert forth[1] == sorted({"added": "removed", "removed": "added"}.get(status, status) for status in back[1])
    assert {name for name, _ in forth[0]} - {None} == set(old_names)
    assert {name for _, name in forth[0]} - {None} == set(new_names)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([8, 33, 5000, 40_000]), min_size=1, max_size=8), st.integers(0, 2**32))
def test_any_renaming_of_random_tensors_is_found(sizes, seed):
    generator = random.Random(seed)
    blobs = [generator.randbytes(size) for size in sizes]
    order = generator.sample(range(len(blobs)), len(blobs))
    with TemporaryDirectory() as folder:
        old = write(Path(folder) / "old", {f"old.{index}": blob for index, blob in enumerate(blobs)})
        new = write(Path(folder) / "new", {f"new.{index}.x": blobs[index] for index in order})
        pairs = align(old, new).pairs
    assert [(pair.old.name, pair.new.name, pair.match) for pair in pairs] == [
        (f"old.{index}", f"new.{index}.x", "renamed") for index in range(len(blobs))
    ]


def test_speed(capsys):
    old, new = (
        named(*(f"model.layers.{i // 9}.experts.{i % 9}.weight" for i in range(200_000)), path=path) for path in ("/a", "/b")
    )
    start = perf_counter()
    assert len(align(old, new).pairs) == 200_000
    with capsys.disabled():
        print(f"\nalign: {perf_counter() - start:.2f} s for 200000 equal names")
