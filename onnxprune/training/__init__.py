"""Fine-tuning: training graphs made of standard ONNX operators, and what runs them."""
