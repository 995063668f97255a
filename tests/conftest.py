"""What all tests share: asyncio as the one backend, and where the optional public sets lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Hypothesis fails an example that takes 200 ms unless CI is set: a busy machine is no fault of the
# code, and time is measured in benchmarks/. All else stays as the environment asks for.
settings.register_profile("kidrails", settings(), deadline=None)
settings.load_profile("kidrails")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with public sets and published scans; the test skips where it is absent."""
    folder = Path(os.environ.get("KIDRAILS_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no public sets at {folder}; set KIDRAILS_SHARED to their folder")
    return folder
