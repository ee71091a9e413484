"""Runs: planning, execution, and the ledger that records them."""
