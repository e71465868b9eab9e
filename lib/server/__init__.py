"""The daemons: their common frame, and one module for each."""
