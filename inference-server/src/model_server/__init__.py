"""ONNX Runtime behind the Open Inference Protocol v2."""

import os

__version__ = "0.1.0"

# NB: before the first import of onnxruntime, which from 1.29 on reports each session to its vendor
# otherwise, and cannot be told later.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
