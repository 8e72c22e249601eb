"""The part of the engine that runs in the interpreter that has onnxruntime-training.

There it is a package of its own, without onnxprune, so it imports nothing from outside itself
but numpy, onnx and onnxruntime.
"""
