"""Texts in English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Lang(StrEnum):
    """The languages of screens and reports."""

    EN = "en"
    ZH = "zh"


@dataclass(frozen=True, slots=True)
class Text:
    """A text in both languages."""

    en: str
    zh: str

    def of(self, lang: Lang) -> str:
        """Return the text in one language."""
        return self.zh if lang is Lang.ZH else self.en

    def __str__(self) -> str:
        return self.en


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, for English sentences: `1 row`, `1,204 rows`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
