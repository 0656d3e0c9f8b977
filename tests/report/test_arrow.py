"""Arrow and Parquet are re-read by the libraries that people use, record by record."""

import io
import subprocess
import sys

import duckdb
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from diffai_stream.analyses.catalogue import ANALYSES  # noqa: E402
from diffai_stream.report.arrow_schema import arrow_schema, row_of  # noqa: E402
from diffai_stream.report.base import WriterOptions  # noqa: E402
from diffai_stream.report.catalogue import open_writer  # noqa: E402
from diffai_stream.report.schema import build_schema  # noqa: E402
from tests.report import sample_records as sample  # noqa: E402
from tests.report.harness import HOSTILE, printed, renamed  # noqa: E402


def table(name, records):
    data = printed(name, records)
    return pa.ipc.open_stream(data).read_all() if name == "arrow" else pq.read_table(io.BytesIO(data))


def pruned(value):
    """Without nulls, which a table cannot tell from absence."""
    if isinstance(value, dict):
        return {key: pruned(item) for key, item in value.items() if item is not None}
    return [pruned(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_rows_are_the_records(name):
    rows = table(name, sample.full_run()).to_pylist()
    assert len(rows) == len(sample.full_run())
    for row, record in zip(rows, sample.full_run(), strict=True):
        if record["type"] in ("tensor", "summary", "error", "warning", "skipped"):
            found = pruned(row)
            assert found == pruned(record)
        assert row["type"] == record["type"]


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_no_records_is_an_empty_table(name):
    assert table(name, []).num_rows == 0


def test_every_field_of_every_record_type_is_a_column():
    schema = build_schema({row.name: row.fields for row in ANALYSES.values()})
    fields = {name for key, item in schema["$defs"].items() if key.endswith("_record") for name in item["properties"]}
    assert set(arrow_schema().names) == fields


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_survive(hostile):
    rows = table("parquet", renamed(sample.full_run(), hostile)).to_pylist()
    expected = hostile.encode("utf-8", "backslashreplace").decode()
    assert {row["name"] for row in rows if row["type"] == "tensor"} == {expected}


def test_what_no_column_holds_is_null():
    row = row_of({"type": "summary", "relative_l2": float("nan"), "counts": {"changed": 2**80, "added": 1}})
    assert row == {"type": "summary", "relative_l2": None, "counts": {"changed": None, "added": 1}}


def test_duckdb_and_pandas_read_it(tmp_path):
    path = tmp_path / "records.parquet"
    path.write_bytes(printed("parquet", sample.transformer_run(4)))
    query = f"select name, change.relative_l2 from '{path}' where type = 'tensor' order by 2 desc limit 1"
    assert duckdb.sql(query).fetchall()[0][0] == "model.layers.2.mlp.up_proj.weight"
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(path)
    assert frame["type"].value_counts()["layer_impact"] == 4


def test_batches_are_bounded_and_printed_as_they_fill():
    stream = io.BytesIO()
    writer = open_writer("arrow", stream, WriterOptions())
    record = sample.full_run()[3]
    for _ in range(1024):
        writer.write(record)
    printed_nbytes = len(stream.getvalue())
    for _ in range(1024):
        writer.write(record)
    assert len(stream.getvalue()) > printed_nbytes
    writer.close()
    assert [batch.num_rows for batch in pa.ipc.open_stream(stream.getvalue())] == [1024, 1024]


def test_without_pyarrow_the_message_names_what_to_install():
    code = (
        "import sys, io; sys.modules['pyarrow'] = None\n"
        "from diffai_stream.report.base import WriterOptions\n"
        "from diffai_stream.report.catalogue import open_writer\n"
        "try: open_writer('parquet', io.BytesIO(), WriterOptions())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("MissingExtraError")
    assert "pip install 'diffai-stream[arrow]'" in found
