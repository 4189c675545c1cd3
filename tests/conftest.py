"""What several test files need."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real recordings that SONIBOOK_DATA names; the test is skipped without."""
    named = os.environ.get("SONIBOOK_DATA", "")
    if not named:
        pytest.skip("needs real recordings: set SONIBOOK_DATA to the folder that holds them")
    if not Path(named).is_dir():
        pytest.skip(f"needs real recordings: SONIBOOK_DATA names {named}, which is no folder")
    return Path(named)
