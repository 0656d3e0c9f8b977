"""Figures of formats and encodings: quantized layouts, the speed of each uncompressed format, the time to list tensors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import format_pair
import index_files
from figures import HERE, Bar, Bench, Figure, Measured, ratio
from measure import Command, MeasureError, Runs, alternate

NEEDS = {"pt": "torch", "onnx": "onnx", "hdf5": "h5py", "gguf-bf16": "gguf", "gguf-f16": "gguf"}
NEEDS |= {"gguf": "gguf", "gguf-vocabulary": "gguf"}
MAPPED = [name for name in format_pair.FORMATS if name != "safetensors-f16"]


def needed(name: str) -> None:
    """Raises MeasureError when the library that writes a format is not installed."""
    module = NEEDS.get(name)
    if module and not importlib.util.find_spec(module):
        raise MeasureError(f"{module}: not installed")


def written(program: str, *arguments: str) -> None:
    """Run a program that writes data, in a process of its own: see measure.py."""
    subprocess.run([sys.executable, str(HERE / program), *arguments], check=True, stdout=subprocess.DEVNULL)


# --- quantized layouts -----------------------------------------------------------------------------------------------


def against_dequantize(method: str) -> Callable[[Bench], Measured]:
    """The layer in bf16 against the same layer quantized, both scripts warm."""

    def measure(bench: Bench) -> Measured:
        if subprocess.run([bench.peer_python, "-c", "import torch, safetensors"], check=False, capture_output=True).returncode:
            raise MeasureError("torch, safetensors: not installed")
        folder, shape = bench.folder / "layer", "tiny" if bench.is_quick else "llama-8b-layer"
        written("quantized_pair.py", str(folder), "--method", method, "--shape", shape)
        pair = folder / "old.safetensors", folder / f"{method}.safetensors"
        mine = bench.compare(pair)
        peer = [bench.peer_python, str(HERE / "peers" / "dequantize_script.py"), method, *map(str, pair)]
        return ratio(*bench.versus(mine, peer), (mine, peer), upside_down=True)

    return measure


# --- the same weights in other formats -------------------------------------------------------------------------------


def converted(bench: Bench, name: str) -> tuple[Path, Path]:
    """The pair in another format; the pair in the format before is removed, since each takes the room of the original."""
    suffix, _ = format_pair.FORMATS[name]
    folder = bench.folder / "formats"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if not path.name.startswith((f"{name}-", "safetensors-f16-")):
            path.unlink()
    pair = folder / f"{name}-old{suffix}", folder / f"{name}-new{suffix}"
    for source, target in zip(bench.pair("1b"), pair, strict=True):
        written("format_pair.py", str(source), str(target), "--format", name)
    return pair


@cache
def runs_of(bench: Bench, name: str) -> tuple[Command, Command, Runs, Runs]:
    """The pair in safetensors and in this format, in turn; measured once for speed and memory."""
    needed(name)
    plain = converted(bench, "safetensors-f16") if name in format_pair.HALF else bench.pair("1b")
    commands = bench.compare(plain), bench.compare(converted(bench, name))
    for command in commands:
        bench.prime(command)
    runs = alternate(commands, [bench.rounds] * 2)
    return *commands, runs[0], runs[1]


def speed(name: str) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        plain, other, of_plain, of_other = runs_of(bench, name)
        return ratio(of_plain, of_other, (plain, other))

    return measure


def peak_of_formats(bench: Bench) -> Measured:
    """The largest of all formats, each with its own figure."""
    peaks = {}
    for name in MAPPED:
        try:
            peaks[name] = runs_of(bench, name)[3].peak_nbytes / 1e6
        except MeasureError:
            continue
    if not peaks:
        raise MeasureError("no library that writes these formats is installed")
    return Measured(max(peaks.values()), "MB", ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items()), ())


# --- listing tensors -------------------------------------------------------------------------------------------------


def listing(name: str) -> Callable[[Bench], Measured]:
    """`diffai inspect` of 291 tensors without that of one in the same format."""

    def measure(bench: Bench) -> Measured:
        needed(name)
        folder, (suffix, _) = bench.folder / "index", index_files.FORMATS[name]
        written("index_files.py", str(folder), "--format", name)
        paths = folder / f"{name}-8b{suffix}", folder / f"{name}-one{suffix}"
        commands = tuple([*bench.diffai, "inspect", str(path)] for path in paths)
        for command in commands:
            bench.prime(command)
        many, one = alternate(commands, [max(bench.rounds, 1 if bench.is_quick else 5)] * 2)
        return Measured(max(0.0, many.seconds - one.seconds), "s", f"{many.spread} - {one.spread}", commands)

    return measure


LAYOUTS = {"gptq": "GPTQ", "awq": "AWQ", "nf4": "bitsandbytes nf4", "fp8": "FP8 in blocks"}


def layout_figure(method: str) -> Figure:
    title = f"bf16 against {LAYOUTS[method]}: times faster than the dequantize script"
    return Figure(f"layout-{method}", title, Bar(5, "x", True), against_dequantize(method))


def format_figure(name: str) -> Figure:
    title = f"speed of {name} against the same weights in safetensors"
    return Figure(f"format-{name}", title, Bar(0.9, "x", True), speed(name))


def index_figure(name: str) -> Figure:
    bar = Bar(0.2 if "vocabulary" in name else 0.1, "s")
    return Figure(f"index-{name}", f"291 tensors of {name} listed, beyond start-up", bar, listing(name))


FORMAT_FIGURES = (
    *map(layout_figure, LAYOUTS),
    *map(format_figure, MAPPED),
    Figure("memory-formats", "largest peak RSS of these formats, 2.47 GB a side", Bar(500, "MB"), peak_of_formats),
    *map(index_figure, index_files.FORMATS),
)
