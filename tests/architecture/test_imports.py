"""Which room may import which, what importing costs, and what is not to be found anywhere."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diffai_stream

PACKAGE = Path(diffai_stream.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [  # a module imports its own room and those before it; longer names are taken out of shorter ones
    ["errors", "_version", "options", "plugins"],
    ["linker", "native", "jit", "vectors"],
    ["storage"],
    ["encodings"],
    ["formats"],
    ["context"],
    ["statistics"],
    ["plan"],
    ["engine"],
    ["store"],
    ["analyses"],
    ["report"],
    ["session", "verdict", "trajectory", "comparison"],
    ["run"],
    ["pipeline"],
    ["testing"],
    ["warmup"],
    ["doctor", "cli"],
]
LAZY = {"diffai_stream"}  # the package itself names its public functions and loads them on use
HEAVY = ("numpy", "torch", "dask", "numba", "distributed", "scipy", "orjson", "rich", "click")
PUBLIC = {
    "diffai_stream": [
        "Comparison",
        "Options",
        "__version__",
        "compare",
        "inspect",
        "merge_profiles",
        "open_checkpoint",
        "profile",
    ],
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    return [*name.split("."), ""][1]


def rank(room: str) -> int:
    return next(number for number, rooms in enumerate(ROOMS) if room in rooms)


def imports(tree: ast.AST) -> set[str]:
    """Modules of this package that a module imports, wherever it does so; not those for type checkers only."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.body
        for inner in ast.walk(child)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            base = node.module or ""
            found |= {base if base.count(".") else f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "diffai_stream"}


def targets(tree: ast.AST) -> set[str]:
    """Modules named in strings, as the catalogues do."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text.partition(":")[0] for text in texts if text.startswith("diffai_stream.") and " " not in text}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_room_imports_only_rooms_before_it(path):
    name = module_name(path)
    if name in LAZY:
        return
    tree = ast.parse(path.read_text())
    here = rank(room_of(name))
    wrong = {other for other in imports(tree) | targets(tree) if room_of(other) and rank(room_of(other)) > here}
    assert not wrong, f"{name} imports {sorted(wrong)}"


def test_every_module_is_in_a_room():
    rooms = [room for group in ROOMS for room in group]
    assert len(rooms) == len(set(rooms))
    assert {room_of(module_name(path)) for path in MODULES} - {""} == set(rooms)


def loaded_by(statement: str) -> set[str]:
    """Which modules a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import diffai_stream", *(f"import diffai_stream.{room}.catalogue" for room in ("formats", "analyses", "report"))],
)
def test_importing_loads_nothing_heavy(statement):
    assert not loaded_by(statement) & set(HEAVY)


def test_plans_are_made_without_numba():
    modules = [module_name(path) for path in MODULES if module_name(path).startswith("diffai_stream.plan.")]
    assert not loaded_by("import " + ", ".join(modules)) & {"numba", "dask", "torch"}


def test_a_comparison_is_imported_without_numba_torch_or_distributed():
    assert not loaded_by("import diffai_stream.pipeline, diffai_stream.cli") & {
        "numba",
        "torch",
        "distributed",
        "scipy",
        "pandas",
    }


def test_the_public_names():
    for module, names in PUBLIC.items():
        assert sys.modules[module].__all__ == names
        assert all(hasattr(sys.modules[module], name) for name in names)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = diffai_stream.nonsense


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    ("pickle", "load"),
    ("pickle", "loads"),
    ("torch", "load"),
    ("marshal", "loads"),
    ("yaml", "load"),
    ("os", "system"),
}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_nothing_evaluates_what_it_reads(path):
    if room_of(module_name(path)) == "testing":
        return  # the laws pickle states of their own making
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, ast.unparse(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in FORBIDDEN_ATTRIBUTES, ast.unparse(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}, ast.unparse(node)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False"
