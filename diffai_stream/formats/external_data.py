"""Files beside an ONNX model that hold its weights, opened by the model's word but never outside its own directory.

`TensorProto.external_data` (onnx.proto) gives `location` relative to the model, `offset` and `length` as decimal text. A
location is refused when it is absolute, goes up, or leads elsewhere through a link; only in a Hugging Face cache, where
every file of a snapshot is a link, the blobs of the same repository count as inside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from diffai_stream.errors import FormatError
from diffai_stream.formats.inert import open_regular
from diffai_stream.storage.extent import Extent, FileStamp

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


class DataFiles:
    """The data files of one model, each opened once; `stamps` are those that were used."""

    def __init__(self, model_path: str) -> None:
        self.stamps: dict[str, FileStamp] = {}
        self._directory = os.path.dirname(os.path.abspath(model_path))
        self._allowed = [os.path.realpath(self._directory)]
        head, _, _ = self._directory.partition(f"{os.sep}snapshots{os.sep}")
        if head != self._directory and os.path.basename(head).startswith("models--"):
            self._allowed.append(os.path.join(os.path.realpath(head), "blobs"))
        self._found: dict[str, FileStamp | str] = {}

    def extent(self, declared: Mapping[str, str], nbytes: int) -> Extent:
        """Where the `nbytes` bytes of a tensor lie. Raises ValueError when they cannot be there, or must not be."""
        location = declared.get("location", "")
        offset, length = _number(declared, "offset", 0), _number(declared, "length", nbytes)
        stamp = self._stamp(location)
        if length != nbytes:
            raise ValueError(f"its type and shape take {nbytes} bytes, its external data is declared to have {length}")
        if offset + nbytes > stamp.nbytes:
            raise ValueError(
                f"its external data ends at byte {offset + nbytes} of {location!r}, which has {stamp.nbytes}: truncated?"
            )
        return Extent(stamp.path, offset, nbytes)

    def _stamp(self, location: str) -> FileStamp:
        if location not in self._found:
            self._found[location] = self._open(location)
        found = self._found[location]
        if isinstance(found, str):
            raise ValueError(found)
        self.stamps[found.path] = found
        return found

    def _open(self, location: str) -> FileStamp | str:
        """The stamp of a data file, or why there is none."""
        shown = repr(location[:200])
        if not location:
            return "its external data names no location"
        if "\0" in location or "\\" in location or os.path.isabs(location) or ".." in location.split("/"):
            return f"its external data lies at {shown}, outside the directory of the model: refused"
        path = os.path.join(self._directory, location)
        try:
            real = os.path.realpath(path)
            if not any(os.path.commonpath((real, folder)) == folder for folder in self._allowed):
                return f"its external data {shown} is a link out of the directory of the model: refused"
            with open_regular(path) as (_, stamp):
                return stamp
        except FormatError as error:
            return f"its external data {shown} cannot be read: {error.message}"
        except (OSError, ValueError) as error:
            return f"its external data {shown} cannot be read: {error}"


def _number(declared: Mapping[str, str], key: str, default: int) -> int:
    text = declared.get(key)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"the {key} of its external data is {text[:40]!r}, which is no number of bytes")
    return int(text)
