"""Runs: planned, worked on, written down."""
