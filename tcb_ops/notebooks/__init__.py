"""Notebooks: executing them unattended, their pages, the working folder, the practice platform."""
