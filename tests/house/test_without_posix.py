"""tansaku without what Windows lacks: no module fails at import, and indexes are made, changed and searched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..support.fakes import SUPPORT


@pytest.mark.slow
@pytest.mark.integration
def test_nothing_needs_names_that_windows_has_not(tmp_path: Path):
    command = [sys.executable, str(SUPPORT / "without_posix.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
