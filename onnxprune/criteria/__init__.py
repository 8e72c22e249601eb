"""Which weights go by what layers compute on samples: Wanda and SparseGPT."""
