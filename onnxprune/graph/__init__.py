"""Understanding a graph: what is prunable, how it is laid out, which Dropout follows what."""
