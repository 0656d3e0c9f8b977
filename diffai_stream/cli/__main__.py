"""`python -m diffai_stream.cli`: the `diffai` command without its script."""

from diffai_stream.cli import main

main()
