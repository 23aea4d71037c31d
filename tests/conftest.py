"""What all tests share."""

import asyncio
import os

# ONNX Runtime's wheels report usage over the network unless told not to before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# NB: pytest-asyncio asks for the current loop before it installs its own. Python 3.11 makes one
# that nobody closes, whose ResourceWarning fails whatever test runs when it is collected. Once the
# loop was set, even to none, asyncio makes no other.
asyncio.set_event_loop(None)
