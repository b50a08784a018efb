"""Runs the suite of the official client for Node against the shared service."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from service import KEY


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not here")
def test_the_node_client(service):
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", str(Path(__file__).parent / "client.test.mjs")],
        capture_output=True, text=True, timeout=600,
        env={**os.environ, "BASE_URL": f"{service.url}/v1", "API_KEY": KEY, "MODEL": service.model})
    assert done.returncode == 0, done.stdout + done.stderr
