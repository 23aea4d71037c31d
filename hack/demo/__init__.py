"""The demo: real models, real traffic, one promotion and one rollback on a real cluster."""
