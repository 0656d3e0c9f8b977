"""A cluster that loses workers, its scheduler or its patience gives the records of a run on one machine, each once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

pytest.importorskip("distributed")

from diffai_stream.engine import cluster, workers
from diffai_stream.errors import ClusterError, UsageError
from diffai_stream.pipeline import compare
from tests.checkpoints import write_safetensors
from tests.cluster.harness import Cluster
from tests.models import llama, tuned
from tests.validation import printed, stable

CHUNK = 1 << 16
ASKED = {"chunk_size": CHUNK, "stats": True, "analyses": ("anomaly",)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Some hundred batches: large tensors in chunks, and small ones."""
    random, folder = np.random.default_rng(7), tmp_path_factory.mktemp("pair")
    old = {f"model.layers.{i}.mlp.up_proj.weight": random.normal(size=(96, 4096)).astype(np.float32) for i in range(12)}
    new = {name: value + random.normal(size=value.shape).astype(np.float32) * 0.01 for name, value in old.items()}
    sides = (old | llama(2, 32), new | tuned(llama(2, 32)))
    return tuple(str(write_safetensors(folder / f"{i}.safetensors", side)) for i, side in enumerate(sides))


@pytest.fixture(scope="module")
def reference(pair):
    return stable(list(compare(*pair, **ASKED)))


@pytest.fixture
def start(tmp_path):
    """Starts clusters that end with the test."""
    started: list[Cluster] = []

    def begin(count: int = 2, **how: object) -> Cluster:
        folder = tmp_path / f"cluster{len(started)}"
        folder.mkdir()
        started.append(Cluster(folder, count, **how))
        return started[-1]

    yield begin
    for running in started:
        running.close()


@pytest.fixture
def impatient(monkeypatch):
    """A client that waits for seconds where it would wait for a minute."""
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(cluster, "SLOWEST", 0)
    monkeypatch.setattr(cluster, "LOST_SECONDS", 2.0)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(workers, "WAIT_SECONDS", 8.0)


def disturbed(pair, running, disturb, **options):
    """The records of a run that is disturbed after its third tensor."""
    records, seen = [], 0
    for record in compare(*pair, scheduler=running.address, executor="distributed", **{**ASKED, **options}):
        records.append(record)
        seen += record["type"] == "tensor"
        if seen == 3 and disturb is not None:
            disturb()
            disturb = None
    printed(records)
    return stable(records)


def test_records_are_those_of_a_run_on_one_machine(pair, reference, start):
    running = start()
    assert disturbed(pair, running, None) == reference
    assert stable(list(compare(*pair, scheduler_file=str(running.file), executor="distributed", **ASKED))) == reference


def test_every_analysis_gives_the_same(pair, start):
    asked = {"all_analyses": True, "chunk_size": CHUNK}
    here = stable(list(compare(*pair, **asked)))
    running = start()
    assert stable(list(compare(*pair, scheduler=running.address, executor="distributed", **asked))) == here


def test_a_worker_that_is_killed(pair, reference, start, impatient):
    running = start()
    assert disturbed(pair, running, running.workers[0].kill) == reference


def test_all_workers_killed(pair, reference, start, impatient, caplog):
    running = start(1)
    assert disturbed(pair, running, running.workers[0].kill) == reference


def test_the_scheduler_killed(pair, reference, start, impatient, caplog):
    running = start()
    assert disturbed(pair, running, running.scheduler.kill) == reference
    assert "the rest is computed here" in caplog.text


def test_a_worker_that_stands_still(pair, reference, start, impatient):
    running = start()
    assert disturbed(pair, running, lambda: running.workers[0].send_signal(signal.SIGSTOP)) == reference


def test_a_worker_that_joins_late(pair, reference, start, impatient, monkeypatch):
    running, known = start(1), []
    look = workers.Workers.look_now_and_then

    def watched(self):
        look(self)
        known.append(len(self.threads))

    def join():
        running.add()
        running.wait_for(2)

    monkeypatch.setattr(workers.Workers, "look_now_and_then", watched)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.0)
    assert disturbed(pair, running, join) == reference
    assert known[0] == 1
    assert max(known) == 2


def test_a_worker_without_memory_gets_nothing_to_do(pair, reference, start, impatient):
    running = start(1)
    running.add("--memory-limit", "60MB")  # less than the interpreter with its libraries: paused from the start
    running.wait_for(2)
    assert disturbed(pair, running, None) == reference


def test_files_under_another_path(pair, reference, start, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in pair:
        os.link(path, elsewhere / os.path.basename(path))
    running = start(1)
    maps = ((os.path.dirname(pair[0]), str(elsewhere)),)
    assert disturbed(pair, running, None, path_maps=maps) == reference
    with pytest.raises(ClusterError, match=r"cannot open .*nowhere.*--path-map"):
        disturbed(pair, running, None, path_maps=((os.path.dirname(pair[0]), "/nowhere"),))


def test_a_copy_that_is_not_the_same_file(pair, start, tmp_path):
    for path in pair:
        shutil.copy(path, tmp_path)
    running = start(1)
    with pytest.raises(ClusterError, match="another modification time"):
        disturbed(pair, running, None, path_maps=((os.path.dirname(pair[0]), str(tmp_path)),))
    for path in pair:
        (tmp_path / os.path.basename(path)).write_bytes(b"short")
    with pytest.raises(ClusterError, match="with 5 bytes"):
        disturbed(pair, running, None, path_maps=((os.path.dirname(pair[0]), str(tmp_path)),))


def test_a_file_replaced_in_the_run_is_told_by_its_path_here(start, tmp_path):
    random = np.random.default_rng(3)
    tensors = {f"t.{i}.w": random.normal(size=(64, 2048)).astype(np.float32) for i in range(24)}
    here, there = tmp_path / "here", tmp_path / "there"
    paths = [str(write_safetensors(here / name, tensors)) for name in ("old.safetensors", "new.safetensors")]
    there.mkdir()
    for path in paths:
        os.link(path, there / os.path.basename(path))
    running, records = start(1), []
    maps = ((str(here), str(there)),)
    for record in compare(
        *paths, scheduler=running.address, executor="distributed", chunk_size=CHUNK, path_maps=maps, include_unchanged=True
    ):
        if len(records) == 2:
            os.utime(there / "new.safetensors", (1, 1))
        records.append(record)
    errors = [record for record in records if record["type"] == "error"]
    told = [record["name"] for record in records if record["type"] == "tensor"] + [error["tensor"] for error in errors]
    assert sorted(told) == sorted(tensors)
    assert errors
    assert {error["path"] for error in errors} == {paths[1]}
    assert records[-1]["status"] == "failed"


def test_other_versions_are_refused_before_the_start(pair, start, monkeypatch):
    monkeypatch.setattr(workers, "versions", lambda: {"diffai-stream": "99.0"})
    with pytest.raises(ClusterError, match=r"has diffai-stream .*, not 99\.0"):
        disturbed(pair, start(1), None)


def test_no_workers_and_no_scheduler(pair, start, monkeypatch):
    monkeypatch.setattr(workers, "WAIT_SECONDS", 0.5)
    running = start(0)
    with pytest.raises(ClusterError, match="no workers after"):
        disturbed(pair, running, None)
    monkeypatch.setattr("diffai_stream.engine.connection.CONNECT_SECONDS", 1)
    running.scheduler.kill()
    running.scheduler.wait(30)
    with pytest.raises(ClusterError, match="no scheduler answers at tcp://"):
        disturbed(pair, running, None)


def test_over_tls(pair, reference, start, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    name = ("-subj", "/CN=localhost", "-days", "2", "-nodes", "-newkey", "rsa:2048")
    subprocess.run(["openssl", "req", "-x509", *name, "-keyout", key, "-out", cert], check=True, capture_output=True)
    flags = ("--tls-ca-file", str(cert), "--tls-cert", str(cert), "--tls-key", str(key))
    running = start(1, flags=flags, protocol="tls")
    assert running.address.startswith("tls://")
    files = {"tls_ca_file": str(cert), "tls_cert": str(cert), "tls_key": str(key)}
    assert disturbed(pair, running, None, **files) == reference
    with pytest.raises(UsageError, match="PEM"):
        disturbed(pair, running, None, tls_ca_file=str(tmp_path / "missing.pem"))
    with pytest.raises(ClusterError, match="no scheduler answers at tls://"):
        disturbed(pair, running, None)


def test_tls_files_are_for_tls_addresses(pair):
    with pytest.raises(UsageError, match="tls://"):
        list(compare(*pair, scheduler="tcp://127.0.0.1:1", executor="distributed", tls_cert=pair[0]))
