"""The small model that comes with the package: its configuration and its weights."""
