"""The ledger: runs, their rows, and what is stored where."""
