"""Entry point: settings from the environment, then the engine until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import sys

from model_operator.engine.run import run
from model_operator.engine.telemetry import configure_logging
from model_operator.settings import SettingsError, read_settings


def main() -> int:
    """Run the operator; exit code 2 for settings that cannot be read."""
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.telemetry.log_level)
    asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
