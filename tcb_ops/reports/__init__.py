"""What people read of a run: tables, files, pages."""
