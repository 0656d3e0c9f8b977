"""The rows that are cheap to import; what they name is imported when it is used."""

from __future__ import annotations

from typing import Annotated, TypedDict

from diffai_stream.analyses.base import Analysis
from diffai_stream.formats.catalogue import FormatRow
from diffai_stream.report.catalogue import WriterRow


class ScalingFields(TypedDict):
    """scaling: one record a tensor that is the old one times a number."""

    factor: Annotated[float, "middle of the range of new / old over the elements that are not zero"]
    spread: Annotated[float, "width of that range over the factor; 0 when every element has the same"]


FORMAT = FormatRow("lines", "a line of JSON, then arrays", (".lines",), "diffai_example.lines", notes="F32 and LOG8")
ANALYSIS = Analysis(
    name="scaling",
    flag="--scaling",
    title="tensors that were multiplied by one number",
    family="example",
    scopes=("tensor",),
    basis="measured",
    module="diffai_example.scaling",
    fields=ScalingFields,
    needs=("ratio_range",),
    reference="smallest and largest quotient of elements",
)
WRITER = WriterRow(
    "tsv", "a line a tensor: name, status, relative change", "diffai_example.tsv:TsvWriter", "text/tab-separated-values"
)
