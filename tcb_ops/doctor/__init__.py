"""Check the machine, the files, the token source and the target."""
