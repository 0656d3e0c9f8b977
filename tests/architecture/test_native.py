"""Compiled entries: all of them are found, and a key changes with everything its machine code depends on, only then."""

import ast
import shutil
import sys

import pytest

from diffai_stream import native
from tests.architecture.test_imports import MODULES, PACKAGE, imports, module_name

ENTRIES = native.all_entries()
PATHS = {module_name(path): path for path in MODULES}


def declared() -> set[str]:
    """The name in every call of Entry(...) in the package."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Entry":
                found.add(node.args[1].value)
    return found


def test_every_declared_entry_is_found():
    assert set(ENTRIES) == declared()
    assert len(ENTRIES) > 8


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_a_function(name):
    tree = ast.parse(PATHS[ENTRIES[name].module].read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("module", sorted({entry.module for entry in ENTRIES.values()}))
def test_sources_are_all_that_the_module_imports(module):
    expected, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        expected.add(name)
        found = imports(ast.parse(PATHS[name].read_text()))
        tree = ast.parse(PATHS[name].read_text())
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        found |= {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        waiting += [other for other in found if other in PATHS and other not in expected and PATHS[other].name != "__init__.py"]
    assert native.sources_of(module) == expected


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The package as a copy whose files a test may change."""
    copy = shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(native, "PACKAGE", copy)
    return copy


def forget() -> None:
    for function in (native.key_of, native._imports_of):
        function.cache_clear()


def keys() -> dict[str, str]:
    forget()
    return {name: native.key_of(entry.module) for name, entry in ENTRIES.items()}


def test_a_key_changes_with_what_it_depends_on_only(copied, request):
    request.addfinalizer(forget)
    before = keys()
    (copied / "statistics/kernels/scan.py").open("a").write("\n")
    after_scan = keys()
    assert {name for name in before if before[name] != after_scan[name]} == {"scan_pair32", "scan_pair64"}
    (copied / "jit.py").open("a").write("\n")
    after_jit = keys()
    assert all(after_scan[name] != after_jit[name] for name in before)
    (copied / "pipeline.py").open("a").write("\n")
    assert keys() == after_jit


def test_a_key_changes_with_the_interpreter(monkeypatch, request):
    request.addfinalizer(native._environment.cache_clear)
    before = native._environment()
    native._environment.cache_clear()
    monkeypatch.setattr(sys, "version_info", (9, 9, 9))
    assert native._environment() != before
