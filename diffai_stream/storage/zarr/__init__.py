"""zarr arrays of both versions: metadata, chunks and shards, unpacked within the size they declare."""
