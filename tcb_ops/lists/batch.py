"""A checked list: what `links` and `upload` work on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from tcb_ops.lists.cells import shown
from tcb_ops.lists.files import Files, Unfit
from tcb_ops.lists.problems import input_error
from tcb_ops.lists.staging import Problems, Staging
from tcb_ops.model import Merchant, Problem, Row, Text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from tcb_ops.lists.merchants import Merchants

__all__ = ["Batch", "OnBad"]

OnBad: TypeAlias = Literal["refuse", "skip"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of a list, on disk: as long as the batch lives, or until it is closed.

    Nothing about it changes; `check_files` and `limited` give another view of the same rows.
    """

    source: Path
    """As the operator named it."""
    sha256: str
    """Of the file's bytes, 64 hex digits."""
    bytes: int
    headers: tuple[str, ...]
    """As they stand in the file, without columns that begin with `tcb_`."""
    encoding: str
    delimiter: str
    warnings: tuple[Text, ...]
    decided: Text
    """One line: encoding, delimiter, which column means what, rows."""
    merchants: Merchants = field(repr=False)
    left_out: int
    """Rows of merchants that `--where` leaves out: they are not in the batch."""
    on_bad: OnBad
    root: Path | None
    """Where the local files lie; None where they were not looked at."""
    staging: Staging = field(repr=False)
    file_column: str = field(default="", repr=False)
    """The header that problems of local files are said about."""
    until: int | None = field(default=None, repr=False)
    """With `limited`: the last line that is in."""

    @property
    def count(self) -> int:
        """Rows, invalid ones among them."""
        if self.until is not None:
            return self.valid
        return int(self.staging.ask("SELECT COUNT(*) FROM rows")[0][0])

    @property
    def valid(self) -> int:
        """Rows without a problem."""
        return self.staging.count("COUNT(*)", self.until)

    @property
    def problems(self) -> Problems:
        """Every problem in the order of the file; none with `limited`, which has valid rows only."""
        return Problems(self.staging, self.headers)

    @property
    def envs(self) -> int:
        """Environments of the valid rows."""
        return self.staging.count("COUNT(DISTINCT env)", self.until)

    @property
    def merchants_count(self) -> int:
        """Mini programs (appids) of the valid rows."""
        return self.staging.count("COUNT(DISTINCT appid)", self.until)

    @property
    def most_rows_of_an_appid(self) -> int:
        """Valid rows of the mini program that has most: what `--rate`, which is per appid, is reckoned on."""
        return self.staging.most_of("appid", self.until)

    @property
    def total_bytes(self) -> int:
        """Bytes of the valid rows' local files; 0 where they were not looked at."""
        return self.staging.count("SUM(size)", self.until)

    def by_merchant(self) -> list[tuple[str, str, int, int, int]]:
        """Of the valid rows: (appid, merchant, environments, rows, bytes), most rows first."""
        return self.staging.by_merchant(self.until)

    def by_place(self) -> list[tuple[str, str, int]]:
        """Of the valid rows: (appid, env, rows): who calls for which environment."""
        return self.staging.by_place(self.until)

    def of_left(self) -> list[tuple[Merchant, int]]:
        """Of the valid rows: those that will not be attempted, by the merchant's line that says it has left."""
        left = {(m.appid, m.env): m for m in self.merchants.whole if m.left}
        return [(left[appid, env], rows) for appid, env, rows in self.by_place() if (appid, env) in left]

    def rows(self) -> Iterator[Row]:
        """The rows in the order of the file; one with a problem has `invalid` set."""
        return self.staging.rows(self.until)

    def limited(self, n: int) -> Batch:
        """The first `n` valid rows only (`--limit`)."""
        return replace(self, until=self.staging.line_of_valid(n))

    def check_files(self, root: str | Path) -> Batch:
        """Look at every row's local file below `root`: rows get sizes and times, unfit files become problems.

        Raises InputError with every problem of the list: where the root is not there, and, unless bad rows are
        skipped, where there is any.
        """
        files = Files(Path(root))
        self.staging.clear_file_problems()
        if problem := files.problem():
            self.staging.add_problems([problem], of_file=True)
            raise input_error(str(self.source), self.problems, self.decided)
        for page in self.staging.files():
            facts: list[tuple[int, int, int]] = []
            unfit: list[Problem] = []
            for line, file in page:
                found = files.look(file)
                if isinstance(found, Unfit):
                    unfit.append(Problem(line, self.file_column, found.message, found.mend, shown(file)))
                else:
                    facts.append((found.size, found.mtime_ns, line))
            self.staging.set_files(facts)
            self.staging.add_problems(unfit, of_file=True)
        if self.on_bad == "refuse" and self.problems:
            raise input_error(str(self.source), self.problems, self.decided)
        return replace(self, root=Path(root))

    def close(self) -> None:
        """Give the disk space back. The rows cannot be read any more."""
        self.staging.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
