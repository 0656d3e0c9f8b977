"""Every writer prints every record; goldens in `tests/golden/` are renewed with `UPDATE_GOLDEN=1 pytest tests/report`."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffai_stream.errors import UsageError
from diffai_stream.report.base import WriterOptions
from diffai_stream.report.catalogue import WRITERS, open_writer, writer_row
from diffai_stream.report.ndjson import encode
from diffai_stream.report.plain import METADATA_NBYTES, sanitised
from tests.report import sample_records as sample
from tests.report.harness import HOSTILE, printed, renamed

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", [name for name, row in WRITERS.items() if not row.is_binary])
def test_golden(name):
    found = printed(
        name, sample.full_run(), width=100 if name == "text" else None, top=12, clock=lambda: "2026-01-02T03:04:05Z"
    )
    path = GOLDEN / f"report.{name}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(found)
    assert found == path.read_bytes()


def test_ndjson_round_trip():
    assert [json.loads(line) for line in printed("ndjson", sample.full_run()).splitlines()] == sample.full_run()


def test_json_is_one_document():
    assert json.loads(printed("json", sample.full_run())) == sample.full_run()


def test_yaml_is_one_document():
    assert yaml.safe_load(printed("yaml", sample.full_run())) == sample.full_run()


@pytest.mark.parametrize(("name", "expected"), [("ndjson", b""), ("json", b"[]\n"), ("yaml", b"[]\n"), ("text", b"")])
def test_no_records_and_two_closes(name, expected):
    stream = io.BytesIO()
    writer = open_writer(name, stream, WriterOptions())
    writer.close()
    writer.close()
    assert stream.getvalue() == expected


def test_ndjson_is_flushed_per_record_and_lines_are_short():
    class Stream(io.BytesIO):
        flushes = 0

        def flush(self):
            self.flushes += 1

    stream = Stream()
    writer = open_writer("ndjson", stream, WriterOptions())
    for number, record in enumerate(sample.full_run(), 1):
        writer.write(record)
        assert stream.flushes == number
    assert max(len(line) for line in stream.getvalue().split(b"\n")) < 16 * 1024


@pytest.mark.parametrize("name", ["ndjson", "json", "yaml"])
def test_not_a_number_is_null(name):
    record = {"type": "tensor", "values": [float("nan"), float("inf"), -float("inf"), 1.0]}
    load = yaml.safe_load if name == "yaml" else json.loads
    loaded = load(printed(name, [record]))
    assert (loaded if name == "ndjson" else loaded[0])["values"] == [None, None, None, 1.0]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", ["ndjson", "json", "yaml"])
def test_hostile_names_survive(name, hostile):
    records = renamed(sample.full_run(), hostile)
    data = printed(name, records)
    assert b"\x1b" not in data
    if name == "ndjson":
        loaded = [json.loads(line) for line in data.split(b"\n")[:-1]]
    else:
        loaded = json.loads(data) if name == "json" else yaml.safe_load(data)
    assert loaded == sanitised(records)


def test_lone_surrogates_stay_distinct():
    assert encode({"name": "\udcff"}) == b'{"name":"\\\\udcff"}'
    assert encode({"name": "\udcfe"}) != encode({"name": "\udcff"})


def test_integers_beyond_64_bits_are_exact():
    assert json.loads(encode({"numel": 2**80})) == {"numel": 2**80}


@pytest.mark.parametrize("checkpoints", [0, 5])
def test_long_metadata_is_cut_and_says_so(checkpoints):
    header = sample.full_run()[0]
    items = [{"key": f"k{i}", "value": "v" * 100} for i in range(500)]
    items[3]["value"] = "template" * 5000
    header["old"] = {**header["old"], "metadata": items}
    if checkpoints:
        header["checkpoints"] = [header["old"]] * checkpoints
    line = encode(header)
    loaded = json.loads(line)
    assert len(line) < METADATA_NBYTES + 4096
    assert loaded["old"]["metadata_truncated"] is True
    assert [item["key"] for item in loaded["old"]["metadata"][:4]] == ["k0", "k1", "k2", "k4"]
    assert "metadata_truncated" not in loaded["new"]
    assert len(header["old"]["metadata"]) == 500


@pytest.mark.parametrize("name", ["ndjson", "json", "yaml"])
def test_time_stamps_only_when_asked(name):
    record = {"type": "tensor"}
    assert b"timestamp" not in printed(name, [record])
    assert b"2026-01-02T03:04:05Z" in printed(name, [record], timestamps=True, clock=lambda: "2026-01-02T03:04:05Z")
    assert record == {"type": "tensor"}


def test_the_real_clock_is_utc():
    assert WriterOptions(timestamps=True).stamped({})["timestamp"].endswith("Z")


@pytest.mark.parametrize(("name", "hint"), [("ndjsn", "'ndjson'"), ("yml", "'yaml'"), ("zzzzzz", "one of: text")])
def test_unknown_output_suggests(name, hint):
    with pytest.raises(UsageError, match=hint):
        open_writer(name, io.BytesIO(), WriterOptions())


def test_rows_are_documented():
    for name, row in WRITERS.items():
        assert row.name == name
        assert row.title
        assert "/" in row.media_type
    assert writer_row("json").is_document


def test_importing_the_catalogue_is_light():
    heavy = "{'rich', 'orjson', 'yaml', 'numpy', 'jsonschema'}"
    code = f"import sys, diffai_stream.report.catalogue, diffai_stream.report.progress; print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert result.stdout.strip() == "set()"
