"""What every format keeps, as a class to inherit from in a test module that pytest runs:

class TestLines(FormatContract):
    row = FORMAT
    arrays = {"a": np.ones((2, 3), np.float32)}

    def write(self, folder):
        ...a file of the format that holds `arrays`; its path
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from diffai_stream.errors import CheckpointError, DiffaiError
from diffai_stream.formats.base import Checkpoint, Format
from diffai_stream.formats.catalogue import FORMATS, HEAD_NBYTES, FormatRow
from diffai_stream.pipeline import compare, inspect
from diffai_stream.testing.checkpoints import taking_part, write_arrays

DAMAGES = 24
OTHERS = (
    b"",
    b"{",
    b"PK\x03\x04",
    b"\x93NUMPY",
    b"\x00" * 9,
    b"\xff" * HEAD_NBYTES,
    b"GGUF\x03\x00\x00\x00",
    b"\x89HDF\r\n\x1a\n",
)


class FormatContract:
    """Checks for one row of the formats and a file that `write` makes.

    `arrays` are what that file holds, by name, as numbers; left empty where that cannot be said simply.
    """

    row: ClassVar[FormatRow]
    arrays: ClassVar[Mapping[str, NDArray[Any]]] = {}

    def write(self, folder: Path) -> Path:
        """A sound file or directory of the format, in a folder of its own."""
        raise NotImplementedError

    @property
    def format(self) -> Format:
        """The module of the row."""
        return self.row.load()

    def test_the_row_is_sound(self) -> None:
        """It has a name, a title and suffixes; its module has `probe` and `index`."""
        assert self.row.name
        assert self.row.title
        assert all(suffix == suffix.lower() for suffix in self.row.suffixes)
        assert self.row.access in ("mapped", "streamed")
        assert callable(self.format.probe)
        assert callable(self.format.index)

    def test_it_knows_its_own_files_and_no_others(self, tmp_path: Path) -> None:
        """`probe` says yes to a file of the format whatever it is called, and to no file of a known one."""
        path = self.write(tmp_path)
        assert self.format.probe(str(path), head_of(path)) is True
        for head in OTHERS:
            assert self.format.probe(str(tmp_path / "no such file"), head) in (True, False)
        with taking_part(FORMATS, self.row):
            before = [row for name, row in FORMATS.items() if name != self.row.name]
            claimed = [row.name for row in before if row.load().probe(str(path), head_of(path))]
            position = list(FORMATS).index(self.row.name)
            assert not [name for name in claimed if list(FORMATS).index(name) < position], "an earlier format claims the file"

    def test_its_index_is_the_same_each_time_and_travels(self, tmp_path: Path) -> None:
        """Equal files have equal indexes; an index survives pickling, because workers are sent it."""
        path = self.write(tmp_path)
        found = self.indexed(path)
        assert found.tensors
        assert len({entry.name for entry in found.tensors}) == len(found.tensors)
        assert self.indexed(path) == found
        assert pickle.loads(pickle.dumps(found)) == found

    def test_every_byte_lies_in_a_stamped_file(self, tmp_path: Path) -> None:
        """Extents end inside of their files, and every file that is read is stamped."""
        found = self.indexed(self.write(tmp_path))
        for entry in found.tensors:
            for component in entry.components.values():
                for extent in component.extents:
                    if extent.codec:
                        continue  # its own rule says where the bytes lie
                    assert extent.path in found.stamps, f"{entry.name}: {extent.path} has no stamp"
                    assert 0 <= extent.offset <= extent.offset + extent.nbytes <= Path(extent.path).stat().st_size

    def test_its_values_are_those_written(self, tmp_path: Path) -> None:
        """A comparison with the same numbers in safetensors finds no difference, element for element."""
        if not self.arrays:
            assert not [r for r in inspect(str(self.write(tmp_path)), stats=True) if r["type"] == "error"]
            return
        twin = write_arrays(tmp_path / "twin" / "model.safetensors", self.arrays)
        (tmp_path / "own").mkdir()
        with taking_part(FORMATS, self.row):
            records = list(compare(str(twin), str(self.write(tmp_path / "own")), include_unchanged=True))
        status = {record["name"]: record["status"] for record in records if record["type"] == "tensor"}
        assert set(status) == set(self.arrays)
        assert set(status.values()) <= {"unchanged", "retyped"}, status
        assert records[-1]["status"] in ("identical", "equivalent")

    def test_a_damaged_file_is_told(self, tmp_path: Path) -> None:
        """Cut off or changed anywhere, a file is read, or refused with an error that names it; nothing else is raised."""
        (tmp_path / "sound").mkdir()
        sound = self.write(tmp_path / "sound")
        for number, path in enumerate(damaged(sound, tmp_path)):
            error = self._refusal(path)
            assert error is None or error.path or not isinstance(error, CheckpointError), f"damage {number}: {error}"
            assert "\n" not in str(error)

    def _refusal(self, path: Path) -> DiffaiError | None:
        try:
            if self.format.probe(str(path), head_of(path)):
                self.format.index(str(path))
        except DiffaiError as error:
            return error
        return None

    def indexed(self, path: Path) -> Checkpoint:
        """The index of a file; nothing may be wrong with it."""
        found = self.format.index(str(path))
        assert not found.errors
        return found


def head_of(path: Path) -> bytes:
    """What a format is shown of a path."""
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD_NBYTES)


def damaged(sound: Path, folder: Path) -> Iterator[Path]:
    """Copies of a checkpoint, one after the other in one place, of which one file is cut off or changed; seeded."""
    import shutil

    rng = random.Random(0)
    source = sound if sound.is_dir() else sound.parent
    for _ in range(DAMAGES):
        shutil.rmtree(folder / "damaged", ignore_errors=True)
        shutil.copytree(source, folder / "damaged")
        path = folder / "damaged" if sound.is_dir() else folder / "damaged" / sound.name
        victim = rng.choice(sorted(file for file in (folder / "damaged").rglob("*") if file.is_file()))
        victim.write_bytes(_damage(victim.read_bytes(), rng))
        yield path


def _damage(raw: bytes, rng: random.Random) -> bytes:
    """Cut off, or with some bytes changed, most of them near the beginning, where headers are."""
    if not raw or rng.random() < 0.4:
        return raw[: rng.randrange(len(raw) + 1)]
    changed = np.frombuffer(raw, np.uint8).copy()
    for _ in range(rng.choice((1, 1, 4, 16))):
        changed[min(int(rng.paretovariate(0.7)) - 1, len(raw) - 1)] = rng.randrange(256)
    return changed.tobytes()
