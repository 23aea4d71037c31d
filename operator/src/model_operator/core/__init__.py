"""Pure decisions: standard library and api only; no clock, no logging, no I/O."""
