"""The API in frozen types, and every label key."""
