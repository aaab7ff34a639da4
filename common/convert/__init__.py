"""Conversion of weights between frameworks, and to ONNX."""
