"""Notebooks without anybody before them: parameters checked, cells run, the page made."""
