"""Training with onnxruntime-training 1.19.2, which runs in a Python of its own."""

from .engine import OnnxruntimeTraining

__all__ = ["OnnxruntimeTraining"]
