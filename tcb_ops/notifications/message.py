"""The message about an audit: what newly broke first, cut at a line to the bytes that its receiver takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, _, ngettext
from tcb_ops.model import is_simulated
from tcb_ops.reports.audit import AuditGroup, AuditLine, AuditResult, audit_counts, audit_groups
from tcb_ops.reports.explanations import MARK, code_label

LONGEST_NAME = 40
"""Characters of a name, an environment or a note."""
LONGEST_REMARK = 120
"""Characters of a remark, such as a forecast."""
LONGEST_LINE = 400
"""Bytes of a line above or below the environments: the report's path may be long."""
_MARKDOWN = str.maketrans("<>[]*`@#|", "＜＞［］＊｀＠＃｜")
"""Signs that mean something to a robot's markdown, and their full-width forms, which do not."""
_TEXT = str.maketrans("<>@", "＜＞＠")
"""Likewise in text: Feishu reads `<at user_id="all">` there, others `@all`."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message in lines, so that it can be cut between them."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, bool], ...]
    """Each line, and whether it is an environment (else the title of those below it)."""
    tail: tuple[str, ...]
    lang: Lang

    def fit(self, most: int) -> str:
        """Return the message in at most `most` bytes of UTF-8, cut at a line, with the count of what was left out."""
        lines = [*self.head, *(line for line, _ in self.rows), *self.tail]
        if size(lines) <= most:
            return "\n".join(lines)
        kept = list(self.rows)
        while kept:
            kept.pop()
            while kept and not kept[-1][1]:  # a title without its environments
                kept.pop()
            left = sum(entry for _, entry in self.rows) - sum(entry for _, entry in kept)
            lines = [*self.head, *(line for line, _ in kept), _more(left).of(self.lang), *self.tail]
            if size(lines) <= most:
                return "\n".join(lines)
        return cut("\n".join([*self.head, *self.tail]), most)


def size(lines: list[str]) -> int:
    """Return the bytes of some lines, with the breaks between them."""
    return len("\n".join(lines).encode())


def cut(text: str, most: int) -> str:
    """Return the beginning of a text in at most `most` bytes of UTF-8, without half a character."""
    raw = text.encode()
    return text if len(raw) <= most else raw[:most].decode(errors="ignore")


def _more(left: int) -> Text:
    return ngettext("… and {n:,} more environment", "… and {n:,} more environments", left)


def audit_message(
    result: AuditResult,
    report: str,
    manifest_sha256: str,
    lang: Lang,
    *,
    markdown: bool,
    missed: Sequence[Text] = (),
) -> Message:
    """Write the message about an audit; `report` is its page or folder, empty where there is none.

    `missed`: lines about earlier messages that did not arrive.
    """
    run = result.run
    title = _("Audit {id}", id=run.id).of(lang)
    strong = "**{}**" if markdown else "{}"
    head = [strong.format(f"{MARK} · {title}" if is_simulated(run.target) else title)]
    if result.stopped is not None:
        head.append(_plain(result.stopped.of(lang), markdown=markdown))
        head.append(_("It affects every merchant; the audit was stopped.").of(lang))
        rows: list[tuple[str, bool]] = []
    else:
        head.append(audit_counts(result).of(lang))
        rows = [row for group in audit_groups(result) if group.lines for row in _rows(group, strong, lang)]
    if result.previous is None and result.stopped is None:
        head.append(_("There is no earlier audit to compare with: everything counts as new.").of(lang))
    head += [one.of(lang) for one in missed]
    tail = []
    if report:
        tail.append(_("Report: {report}", report=report).of(lang))
    if manifest_sha256:
        tail.append(f"manifest sha256: {manifest_sha256}")
    return Message(
        title,
        tuple(cut(line, LONGEST_LINE) for line in head),
        tuple(rows),
        tuple(cut(line, LONGEST_LINE) for line in tail),
        lang,
    )


def trial_message(lang: Lang, *, markdown: bool, simulated: bool) -> Message:
    """Write the message of `tcb-ops notify --test`."""
    title = _("tcb-ops: test message").of(lang)
    strong = "**{}**" if markdown else "{}"
    head = (
        strong.format(f"{MARK} · {title}" if simulated else title),
        _("Whoever reads this will get the message of the nightly audit.").of(lang),
    )
    return Message(title, head, (), (), lang)


def _rows(group: AuditGroup, strong: str, lang: Lang) -> list[tuple[str, bool]]:
    markdown = strong != "{}"
    title = f"{group.title.of(lang)} · {len(group.lines):,}"
    return [
        (strong.format(title), False),
        *((entry_line(line, lang, markdown=markdown), True) for line in group.lines),
    ]


def entry_line(line: AuditLine, lang: Lang, *, markdown: bool) -> str:
    """Return an environment's line of the message; long texts are cut."""
    label = code_label(line.code).of(lang) if line.code else ""
    remark = line.remark.of(lang) if line.remark is not None else ""
    cause = label if label == line.code else f"{line.code} {label}".strip()
    parts = [_cut(part, LONGEST_NAME) for part in (line.name, line.env, cause)]
    parts += [_cut(remark, LONGEST_REMARK), _cut(line.note, LONGEST_NAME)]
    shown = (_plain(part, markdown=markdown) for part in parts if part)
    return f"{'- ' if markdown else '  '}{' · '.join(shown)}"


def _cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters, which shows that it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _plain(text: str, *, markdown: bool) -> str:
    """Return a text from outside on one line, without signs that a robot would act on."""
    line = re.sub(r"\s+", " ", sanitize(text)).strip()
    return line.translate(_MARKDOWN if markdown else _TEXT)
