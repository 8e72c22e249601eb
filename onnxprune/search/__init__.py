"""How much each layer can spare, and the most pruning within a given loss."""
