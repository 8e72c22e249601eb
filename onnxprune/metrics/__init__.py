"""What a model's outputs are measured by."""
