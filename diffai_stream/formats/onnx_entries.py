"""Entries of an ONNX model: its tensors under names of their own, quantized weights folded, made-up names replaced."""

from __future__ import annotations

from diffai_stream.errors import TensorError
from diffai_stream.formats import onnx_names, onnx_quantized
from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.external_data import DataFiles
from diffai_stream.formats.inert import printable
from diffai_stream.formats.onnx_graph import Model
from diffai_stream.formats.onnx_quantized import Folded, Refused
from diffai_stream.formats.onnx_tensors import Stored, place
from diffai_stream.formats.small_constants import small_constant
from diffai_stream.formats.wire import Wire


class Entries:
    """The tensors of a model as entries, `tensors` by name in file order; what cannot be one is told to the model."""

    def __init__(self, wire: Wire, real_path: str, model: Model) -> None:
        self.wire, self.real_path, self.model = wire, real_path, model
        self.files = DataFiles(model.path)
        self.tensors: dict[str, TensorEntry] = {}
        self._outer = {printable(tensor.name) for tensor in model.tensors if not tensor.scope}
        self._repeats: dict[str, int] = {}
        self._names: set[str] = set()
        for tensor in model.tensors:
            name = self._unique(tensor)
            if tensor.is_text:
                self.model.notes.add("text_tensor", f"{name!r} holds strings, which are not compared", name)
            elif (entry := self._placed(tensor, name)) is not None:
                self.tensors[name] = entry

    def fold(self) -> None:
        """Put the logical tensor in the place of the codes of each quantized weight, and take out what it is made of."""
        folded: dict[str, Folded] = {}
        for node in self.model.nodes:
            if node.op not in onnx_quantized.FOLDED:
                continue
            try:
                found = onnx_quantized.fold(node, self._find)
            except Refused as reason:
                title = node.name or next(iter(node.inputs), node.op)
                message = f"what {title!r} ({node.op}) dequantizes is compared as it is stored: {reason}"
                self.model.notes.add("quantized_as_stored", message, title)
                continue
            if found is not None:
                folded.setdefault(found.consumed[0], found)
        consumed = {name for found in folded.values() for name in found.consumed}
        for name in consumed:
            self.model.constants.pop(name, None)
        consumed |= self._steps()
        wanted = [(name, folded[name].entry if name in folded else entry) for name, entry in self.tensors.items()]
        self.tensors = self._renamed([one for one in wanted if one[0] in folded or one[0] not in consumed])

    def _steps(self) -> set[str]:
        """Names of the scales and zero points of activations, whose values are hyperparameters from here on."""
        found: set[str] = set()
        for node in self.model.nodes:
            for entry in onnx_quantized.steps_of_activations(node, self.tensors.get):
                component = entry.components["data"]
                is_here = all(extent.path == self.real_path for extent in component.extents)
                value = small_constant(self.wire, component) if is_here and entry.name not in found else None
                if value is not None:
                    self.model.constants[entry.name] = value
                    found.add(entry.name)
        return found

    def rename(self) -> None:
        """Name weights by the nodes that use them, where an exporter made their names up."""
        by_use = onnx_names.names_by_use(self.model.nodes)
        wanted = []
        for name, entry in self.tensors.items():
            better = onnx_names.plain_name(by_use.get(name, name))
            wanted.append((name, entry if better == name else entry._replace(name=better)))
        self.tensors = self._renamed(wanted)

    def _renamed(self, wanted: list[tuple[str, TensorEntry]]) -> dict[str, TensorEntry]:
        """Entries by their new names; one whose new name another has, or wants too, keeps the old one."""
        counts: dict[str, int] = {}
        for name, entry in wanted:
            for each in {name, entry.name}:
                counts[each] = counts.get(each, 0) + 1
        entries = {}
        for name, entry in wanted:
            if entry.name != name and counts[entry.name] > 1:
                entry = entry._replace(name=name)
            elif entry.name != name:
                entry = entry._replace(metadata={**entry.metadata, "stored_name": name})
            entries[entry.name] = entry
        return entries

    def _find(self, name: str) -> TensorEntry | None:
        """The entry of a value that is a constant, a small one too."""
        name = printable(name)
        if name in self.tensors:
            return self.tensors[name]
        small = self.model.small.get(name)
        return self._placed(small, name) if small is not None else None

    def _placed(self, tensor: Stored, name: str) -> TensorEntry | None:
        try:
            component = place(tensor, self.real_path, self.files)
        except (ValueError, TensorError) as error:
            self.model.errors.append(TensorError(str(error), path=self.model.path, tensor=name, offset=tensor.start))
            return None
        return TensorEntry(name, component.shape, component.dtype, {"data": component})

    def _unique(self, tensor: Stored) -> str:
        """The name, with its scope where an outer graph or one before has the same; "#2" where one graph repeats itself."""
        plain = printable(tensor.name) or "unnamed"
        name = f"{tensor.scope}{plain}" if tensor.scope and (plain in self._outer or plain in self._names) else plain
        if name in self._names:
            self.model.notes.add("duplicate_name", f"more than one tensor is named {name!r}", name)
            self._repeats[name] = self._repeats.get(name, 1) + 1
            name = f"{name}#{self._repeats[name]}"
        self._names.add(name)
        return name
