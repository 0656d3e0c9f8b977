"""Temporary files without a name: they vanish with the process, and none is begun that would fill the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import BinaryIO

from diffai_stream.errors import TensorError
from diffai_stream.storage.extent import Extent

SPARE_NBYTES = 256 << 20


def scratch_file(nbytes: int, extent: Extent) -> BinaryIO:
    """An empty file of `nbytes` bytes in the temporary directory (`TMPDIR`), for the data of an extent.

    Raises TensorError when it would leave less than SPARE_NBYTES free there.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if nbytes > free - SPARE_NBYTES:
        message = f"needs {nbytes} bytes of temporary space, {folder} has {free}; set TMPDIR to a larger disk"
        raise TensorError(message, path=extent.path, offset=extent.offset)
    file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - the caller closes it
    try:
        os.truncate(file.fileno(), nbytes)
    except OSError as error:
        file.close()
        raise scratch_error(error, extent) from error
    return file


def scratch_error(error: OSError, extent: Extent) -> TensorError:
    """The error for a temporary file that cannot be written."""
    message = f"cannot write to {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a larger disk"
    return TensorError(message, path=extent.path, offset=extent.offset)
