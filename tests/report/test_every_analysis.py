"""Every analysis that runs on a small model can be printed by every writer, and its records hold plain values only."""

import json

import duckdb
import pytest
from rich.cells import cell_len

from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.pipeline import compare
from diffai_stream.report.catalogue import WRITERS
from tests.checkpoints import write_safetensors
from tests.models import llama, tuned
from tests.report.harness import printed

PLAIN = (str, int, float, bool, type(None), list, tuple, dict)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    config = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 4, "learning_rate": 1e-4}
    base = llama(4, 64)
    for name, model, rate in (("old", base, 1e-4), ("new", tuned(base), 2e-4)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({**config, "learning_rate": rate}))
        write_safetensors(folder / name / "model.safetensors", model)
    names = tuple(ANALYSES)
    return list(compare(str(folder / "old"), str(folder / "new"), analyses=names, learning_rate=1e-4, stats=True))


def test_most_of_them_have_something_to_say(records):
    said = {record["type"] for record in records} | {r["analysis"] for r in records if r["type"] == "skipped"}
    assert set(ANALYSES) - said <= {"alert", "anomaly"}  # these have records only where something is wrong
    assert len(said & set(ANALYSES)) > 20


def test_values_are_plain(records):
    def odd(value, path):
        if isinstance(value, dict):
            return [found for key, item in value.items() for found in odd(item, f"{path}.{key}")]
        if isinstance(value, (list, tuple)):
            return [found for item in value for found in odd(item, f"{path}[]")]
        return [] if type(value) in PLAIN else [f"{path}: {type(value).__name__}"]

    assert sorted({found for record in records for found in odd(record, record["type"])}) == []


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_prints_them(name, records):
    assert printed(name, records)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_of_text_is_wider_than_the_page(width, records):
    lines = printed("text", records, width=width).decode().splitlines()
    assert max(map(cell_len, lines)) <= width


def test_duckdb_reads_them_line_by_line(tmp_path, records):
    (tmp_path / "run.ndjson").write_bytes(printed("ndjson", records))
    query = f"from read_json('{tmp_path / 'run.ndjson'}', field_appearance_threshold=0) select count(distinct type)"
    assert duckdb.sql(query).fetchall() == [(len({record["type"] for record in records}),)]
