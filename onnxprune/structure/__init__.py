"""Structure: which indices of which tensors go together, and removing them from the graph."""
