"""The rows of every encoding, by name."""

from __future__ import annotations

from diffai_stream.encodings.base import Encoding
from diffai_stream.encodings.ggml import GGML
from diffai_stream.encodings.plain import PLAIN
from diffai_stream.encodings.quantized import QUANTIZED
from diffai_stream.plugins import Catalogue

ENCODINGS: Catalogue[Encoding] = Catalogue("encodings", Encoding, (*PLAIN, *GGML, *QUANTIZED))
