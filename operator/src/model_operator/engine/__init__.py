"""Watches, queue, reconcile loop and telemetry."""
