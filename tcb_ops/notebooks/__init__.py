"""Notebooks: run unattended, their pages, the workspace, the simulator that they practise on."""
