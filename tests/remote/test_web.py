"""Files of a web server: the records of local ones, whatever the ways in which the server fails."""

import threading
import time

import numpy as np
import pytest

from diffai_stream import compare, inspect, open_checkpoint
from diffai_stream.errors import FormatError, UsageError
from diffai_stream.storage.remote import objects, service
from tests.checkpoints import write_safetensors
from tests.remote.pairs import moved, records


def test_records_equal_those_of_local_files(served, pair):
    assert records(*served, stats=True) == moved(records(*pair, stats=True), pair, served)


def test_one_side_may_be_local(served, pair, expected):
    assert records(pair[0], served[1]) == expected(str(pair[0]), served[1])


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 4}, {"executor": "synchronous"}, {"io": "pread"}], ids=str)
def test_the_way_of_reading_changes_nothing(options, served, expected):
    assert records(*served, **options) == expected(*served)


def test_inspection(served, pair):
    assert [record["type"] for record in inspect(served[0], stats=True)] == [
        r["type"] for r in inspect(str(pair[0]), stats=True)
    ]


def test_data_is_asked_for_once(web, served):
    files, _ = web
    list(compare(*served, chunk_size=1 << 20))
    ranges = [tuple(map(int, h["range"][6:].split("-"))) for path, h in files.requests if path.endswith("old.safetensors")]
    size = len(files.content["/m/old.safetensors"])
    sampled = 8 * 4096
    assert sum(min(last + 1, size) - first for first, last in ranges) <= size + (256 << 10) + sampled


def first_times(count, act):
    """A fault of the first requests of each range."""
    seen, lock = {}, threading.Lock()

    def fault(handler, path):
        with lock:
            key = path, handler.headers.get("Range")
            seen[key] = seen.get(key, 0) + 1
            number = seen[key]
        return number <= count and (act(handler, path) or True)

    return fault


PASSING = {
    "503": first_times(2, lambda handler, _: handler.refuse(503)),
    "429": first_times(1, lambda handler, _: handler.refuse(429)),
    "cut": first_times(2, lambda handler, path: handler.serve(path, cut=True)),
    "closed": first_times(1, lambda handler, _: setattr(handler, "close_connection", True)),
    "slow": lambda *_: time.sleep(0.02),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_leaves_no_trace(name, web, served, expected):
    web[0].faults.append(PASSING[name])
    assert records(*served, chunk_size=1 << 18) == expected(*served)


def always(act):
    return lambda handler, path: act(handler, path) or True


LASTING = {
    "too many bytes": (always(lambda h, p: h.serve(p, extra=b"x")), FormatError, "bytes where|HTTP|failed"),
    "503": (always(lambda h, _: h.refuse(503)), FormatError, r"HTTP 503 \(after 6 attempts\); try again later"),
    "403": (always(lambda h, _: h.refuse(403)), FormatError, "access is refused"),
    "401": (always(lambda h, _: h.refuse(401)), FormatError, "access is refused"),
    "404": (always(lambda h, _: h.refuse(404)), FormatError, "there is no such object"),
    "400": (always(lambda h, _: h.refuse(400)), FormatError, "HTTP 400"),
    "cut": (always(lambda h, p: h.serve(p, cut=True)), FormatError, "cut.*after 6 attempts"),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_said(name, web, served):
    fault, kind, words = LASTING[name]
    web[0].faults.append(fault)
    with pytest.raises(kind, match=words) as raised:
        open_checkpoint(served[0])
    assert raised.value.path == served[0]


def test_of_a_server_without_ranges_small_files_are_taken_whole(web, served, expected, monkeypatch):
    web[0].faults.append(always(lambda handler, path: handler.serve(path, ranges=False)))
    assert records(*served) == expected(*served)
    monkeypatch.setattr(objects, "WHOLE_NBYTES", 1 << 20)
    with pytest.raises(FormatError, match=r"ignores ranges.*download it first"):
        open_checkpoint(served[0])


def test_a_server_that_hangs_ends_the_run(web, served, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(service, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(service, "ATTEMPTS", 2)
    web[0].faults.append(lambda *_: release.wait(20))
    begun = time.monotonic()
    try:
        with pytest.raises(FormatError, match=r"no answer in time \(after 2 attempts\)"):
            open_checkpoint(served[0])
    finally:
        release.set()
    assert time.monotonic() - begun < 15


def test_a_server_that_dies_meanwhile_fails_what_is_left_at_once(web, served, monkeypatch):
    comparison = compare(*served, chunk_size=1 << 16, workers=1)
    web[0].faults.append(always(lambda handler, _: handler.refuse(500)))
    begun = len(web[0].requests)
    found = list(comparison)
    assert {record["error"] for record in found if record["type"] == "error"} == {"TensorError"}
    assert found[-1]["status"] == "failed"
    assert len(web[0].requests) - begun < 200  # not six attempts for each tensor


def test_an_object_that_is_replaced_meanwhile_is_an_error_and_never_mixed(web, served):
    files, _ = web
    comparison = compare(*served, chunk_size=1 << 16, workers=1)
    files.content["/m/new.safetensors"] = b"\0" * len(files.content["/m/new.safetensors"])
    found = list(comparison)
    errors = [record for record in found if record["type"] == "error"]
    assert {record["error"] for record in errors} == {"ChangedFileError"}
    assert {record["path"] for record in errors} == {served[1]}
    assert found[-1]["status"] == "failed"


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_without_a_usable_version_the_size_is_watched(etag, web, served, expected):
    files, _ = web
    files.etags = dict.fromkeys(files.content, etag)
    assert records(*served) == expected(*served)
    comparison = compare(*served, chunk_size=1 << 16, workers=1)
    files.content["/m/new.safetensors"] += b"more"
    assert {record["error"] for record in comparison if record["type"] == "error"} == {"ChangedFileError"}


def test_a_weak_version_is_watched(web, served):
    files, _ = web
    files.etags = dict.fromkeys(files.content, 'W/"one"')
    comparison = compare(*served, chunk_size=1 << 16, workers=1)
    files.etags = dict.fromkeys(files.content, 'W/"two"')
    assert {record["error"] for record in comparison if record["type"] == "error"} == {"ChangedFileError"}


def test_without_an_etag_the_time_of_the_last_change_is_watched(web, served):
    files, _ = web
    files.etags, files.modified = dict.fromkeys(files.content, ""), "Mon, 01 Jan 2024 00:00:00 GMT"
    comparison = compare(*served, chunk_size=1 << 16, workers=1)
    files.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
    assert {record["error"] for record in comparison if record["type"] == "error"} == {"ChangedFileError"}


def test_one_address_is_one_file(served):
    comparison = compare(served[0], served[0])
    assert (comparison.summary["status"], comparison.summary["read_nbytes"]) == ("identical", 0)


def test_addresses_that_differ_in_their_query_are_two_files(web, pair, expected):
    files, address = web
    for number, path in enumerate(pair):
        files.content[f"/m.safetensors?v={number}"] = path.read_bytes()
    shown = f"{address}/m.safetensors"
    found = records(f"{shown}?v=0", f"{shown}?v=1")
    assert found[0]["old"]["path"] == shown
    assert found[0]["new"]["path"] == f"{shown}#2"
    assert found == expected(shown, f"{shown}#2")


def test_names_are_quoted_once(web, pair):
    files, address = web
    files.content["/a dir/50% & more.safetensors"] = pair[0].read_bytes()
    found = open_checkpoint(f"{address}/a%20dir/50%25%20&%20more.safetensors")
    assert len(found.tensors) == 42


def test_an_empty_object_is_said_to_be_empty(web):
    files, address = web
    files.content["/m.safetensors"] = b""
    with pytest.raises(FormatError, match="the file is empty"):
        open_checkpoint(f"{address}/m.safetensors")


def test_the_configuration_beside_is_read(web, tmp_path):
    files, address = web
    path = write_safetensors(tmp_path / "m.safetensors", {"model.embed_tokens.weight": np.ones((8, 8), np.float32)})
    files.content |= {"/m.safetensors": path.read_bytes(), "/config.json": b'{"hidden_size": 8', "/vocab.json": b"<html>"}
    found = open_checkpoint(f"{address}/m.safetensors")
    assert found.path == f"{address}/m.safetensors"
    records = list(compare(found.path, found.path, all_analyses=True))
    told = [record for record in records if record.get("code") == "unreadable_context"]
    assert not any("/tmp" in str(record) for record in records)
    assert all(record["path"] == f"{address}/config.json" for record in told)


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.h5"])
def test_other_formats_are_refused(name, web):
    files, address = web
    files.content[f"/{name}"] = {"a.pt": b"PK\x03\x04", "a.npz": b"PK\x03\x04", "a.h5": b"\x89HDF\r\n\x1a\n"}[name] + bytes(600)
    with pytest.raises(UsageError, match="download it first") as raised:
        open_checkpoint(f"{address}/{name}")
    assert raised.value.path == f"{address}/{name}"


def test_a_cluster_is_refused(served):
    with pytest.raises(UsageError, match="remote objects are read by this process alone"):
        compare(*served, scheduler="tcp://127.0.0.1:9")


def test_a_store_keeps_what_was_read(web, served, tmp_path):
    first = records(*served, store=str(tmp_path / "store"))
    begun = len(web[0].requests)
    again = compare(*served, workers=2, chunk_size=1 << 16, store=str(tmp_path / "store"))
    assert [record["type"] for record in again] == [record["type"] for record in first]
    big = [headers for path, headers in web[0].requests[begun:] if "safetensors" in path]
    assert len(big) < 2 * 2 + 2 * 8 + 1  # headers and samples
