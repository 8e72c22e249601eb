"""Prune trained ONNX models: smaller files, the truth about accuracy, size and speed."""
