"""Whether this machine, its files and its target are fit for work, and what to do where they are not."""
