"""Reports of a run: tables, files, pages."""
