"""Weights from one framework to another, and to ONNX."""
