"""The figures in docs/spectrum.md are those of the checked-in result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_figures_are_those_of_the_result(repository: Path) -> None:
    command = [sys.executable, "benchmarks/spectrum_scan.py", "--markdown"]
    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=repository
    ).stdout
    assert len(printed.splitlines()) > 12
    assert printed.strip() in (repository / "docs" / "spectrum.md").read_text()
