"""The version, read by the build and by `diffai --version`."""

__version__ = "0.1.0"
