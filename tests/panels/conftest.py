from panel_lab import lang, open_lab, read  # noqa: F401  fixtures: importing them makes them known here
