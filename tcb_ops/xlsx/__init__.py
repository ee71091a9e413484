"""Workbooks: reading sheets, appending columns, splitting by a column."""
