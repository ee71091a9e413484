from panel_lab import open_lab, read  # noqa: F401  fixtures: importing them makes them known here
