"""Making the batch axis of a graph free: what carries samples, and where."""
