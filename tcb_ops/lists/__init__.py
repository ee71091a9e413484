"""Reading and checking of path lists and merchants files; all problems are reported in one pass."""
