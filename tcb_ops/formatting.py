"""Durations, sizes and texts as people read them."""

from __future__ import annotations


def sanitize(text: str) -> str:
    """Return a text from outside as one line for a terminal: line ends and tabs as spaces, control characters as �."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\r\n\t" else "�" for c in text)


def format_duration(seconds: float) -> str:
    """Return a time span as people read it: 7s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def format_size(size: float) -> str:
    """Return bytes as people read them: 17 B, 4.1 KB, 3 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} TB"


def lines(text: str) -> str:
    """Return a message, which may quote a name from outside, with each of its lines sanitized."""
    return "\n".join(map(sanitize, text.split("\n")))
