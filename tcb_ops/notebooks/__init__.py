"""Notebooks: unattended execution, parameters, pages, workspaces."""
