"""A test workspace: merchants, tokens, files, a list, and a simulator."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import tcb_ops as tcb
from tcb_ops.details import Detail, DetailCode, detail
from tcb_ops.engine.limits import RunLimits
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from robots import SimulatorWithRobots

    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.run import Run

QUICK = RunLimits(backoff=0.01, slow_wait=0.05, patience=10)
TEA, TEA_TEST, BOOKS = (
    Merchant("wxtea", "茶语小铺", "tea-1a2b3c"),
    Merchant("wxtea", "茶语小铺", "tea-test-9f"),
    Merchant("wxbooks", "城南书店", "books-77aa01"),
)


@dataclass(frozen=True)
class Workspace:
    """A workspace with everything that a run needs, on disk and on loopback."""

    folder: Path
    sim: SimulatorWithRobots
    settings: Settings
    merchants: Merchants
    list: Path

    def read(self, **options: Any) -> Batch:
        return read_paths(self.list, self.merchants, self.folder / "files", **options)

    def with_options(self, **options: Any) -> Settings:
        """Return the settings with other options."""
        return load_settings(options=options_for(self.folder, self.sim) | options)

    def upload(self, **options: Any) -> Run:
        """Upload the list, quickly."""
        return tcb.upload(self.read(), **{"settings": self.settings, "limits": QUICK, **options})

    def start_upload(self, **options: Any) -> tcb.RunHandle:
        """Start to upload the list, quickly."""
        return tcb.start_upload(self.read(), **{"settings": self.settings, "limits": QUICK, **options})

    def retry(self, run: str, **options: Any) -> Run:
        """Retry a run, quickly."""
        return tcb.retry(run, self.merchants, **{"settings": self.settings, "limits": QUICK, **options})

    def keep_tokens(self, tokens: Mapping[str, str]) -> None:
        """Replace the token file atomically, as an external program does."""
        write_csv(self.folder / "fresh.csv", ("appid", "access_token"), tokens.items())
        (self.folder / "fresh.csv").replace(self.folder / "tokens.csv")

    def rotate(self, appid: str, others: Mapping[str, str]) -> str:
        """Change a merchant's token on the platform and in the token file; return the new one."""
        token = self.sim.rotate(appid)
        self.keep_tokens({**others, appid: token})
        return token


OpenWorkspace = Callable[..., Workspace]
AssertComplete = Callable[["Run", int], dict[str, int]]
WaitFor = Callable[..., None]


def cancel(run: tcb.RunHandle) -> None:
    """Cancel a run, and wait until it has ended."""
    run.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        run.wait()


def write_csv(file: Path, header: tuple[str, ...], lines: Iterable[Iterable[Any]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([header, *lines])
    return file


def many(*merchants: Merchant, rows: int) -> list[tuple[str, str]]:
    """Return so many rows per environment, sorted by environment."""
    return [(merchant.env, f"banner/{n}.png") for merchant in merchants for n in range(rows)]


def options_for(folder: Path, sim: SimulatorWithRobots) -> dict[str, Any]:
    return {
        "api_base": sim.base,
        "ledger": str(folder / "ledger.db"),
        "merchants": folder / "merchants.csv",
        "lang": "en",
        "tokens": {"source": "file", "file": folder / "tokens.csv"},
    }


def write_settings(folder: Path, base: str, *of_tokens: str, lang: str = "") -> Path:
    """Write the settings file of a folder with a merchants file and a token file."""
    settings = (
        f'api_base = "{base}"',
        'merchants = "merchants.csv"',
        'ledger = "ledger.db"',
        *((f'lang = "{lang}"',) if lang else ()),
        "[tokens]",
        'source = "file"',
        'file = "tokens.csv"',
        *of_tokens,
    )
    (folder / "tcb-ops.toml").write_text("\n".join((*settings, "")), encoding="utf-8")
    return folder / "tcb-ops.toml"


def store_says(message: str) -> Detail:
    """Return the detail of a row that the store refused."""
    return detail(DetailCode.STORE_MESSAGE, message=message)
