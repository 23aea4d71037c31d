"""What takes how long, measured on the real cluster."""
