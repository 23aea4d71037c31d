"""Kubernetes operator that rolls out ONNX models by their health."""
