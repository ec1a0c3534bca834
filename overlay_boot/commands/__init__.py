"""One module per command: usage, options, one or two calls."""
