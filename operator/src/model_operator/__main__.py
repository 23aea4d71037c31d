"""Entry point: settings from the environment, then the engine until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from model_operator.adapters.lease import LeaseLostError
from model_operator.engine.run import run
from model_operator.engine.telemetry import configure_logging
from model_operator.settings import SettingsError, read_settings

logger = logging.getLogger(__name__)


def main() -> int:
    """Run the operator.

    Returns:
        0 after SIGTERM, 1 when the lease is lost: as a new process it may win it again. 2 for
        settings that cannot be read.
    """
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.telemetry.log_level)
    try:
        asyncio.run(run(settings))
    except LeaseLostError as error:
        logger.error("the end, because the lease is lost: %s", error)  # noqa: TRY400 - no defect
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
