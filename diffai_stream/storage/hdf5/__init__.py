"""HDF5 read from its bytes: what lies where, without the library, whose reader can loop or crash on a damaged file."""
