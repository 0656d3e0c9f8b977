"""Documents of a run, in Markdown and HTML: records are collected in bounded memory and printed as one report at the end."""
