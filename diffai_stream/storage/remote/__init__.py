"""Objects of S3, Google Cloud Storage, the Hugging Face Hub and web servers: ranges of them, pinned to what was seen first."""
