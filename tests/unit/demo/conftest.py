"""Keeps asyncio from making a loop that nobody closes."""

import asyncio

# NB: pytest-asyncio 1.5 asks for the current loop before it installs its own. Python 3.11 makes one
# that nobody closes, whose ResourceWarning fails whatever test runs when it is collected. Once the
# loop was set, even to none, asyncio makes no other.
asyncio.set_event_loop(None)
