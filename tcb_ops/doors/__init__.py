"""The ways in: import and command line."""
