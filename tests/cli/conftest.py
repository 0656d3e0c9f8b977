import os
import sys

import pytest

import diffai_stream
from diffai_stream.cli.process import run
from tests.cli.fakes import FakePipeline


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("DIFFAI_") or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")]:
        monkeypatch.delenv(name)


@pytest.fixture
def use(monkeypatch):
    """Puts a pipeline in the place of the real one."""

    def put(pipeline):
        monkeypatch.setitem(sys.modules, "diffai_stream.pipeline", pipeline)
        monkeypatch.setattr(diffai_stream, "pipeline", pipeline, raising=False)
        return pipeline

    return put


@pytest.fixture
def pipeline(use):
    return use(FakePipeline())


@pytest.fixture
def diffai(capfdbinary):
    """Runs a command line: exit status, standard output, standard error."""

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return call
