"""The files of a recording: a folder with one manifest, and a safetensors file for each layer.

`docs/reference/recording.md` has the format. `writer` writes it layer by layer and `reader` opens it; between them are
`manifest` (its checksum and version), `parts` and `forms` (layers and tokens, masks and biases, as JSON and arrays),
`entries` (JSON that is checked as it is read) and `arrayfile` (the safetensors files).
"""

from softmap.recorded.reader import load
from softmap.recorded.writer import Writer, save

__all__ = ["Writer", "load", "save"]
