"""recipes/setup.sh: one clear sentence per obstacle. The installation itself is what every other test runs on."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def set_up(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    settings = os.environ | {"AVAR_PROFILE": "cpu", "AVAR_VENV": str(tmp_path / "venv"), "AVAR_NEED_GB": "0"}
    command = ["bash", str(ROOT / "recipes/setup.sh")]
    return subprocess.run(command, env=settings | environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def old_python(tmp_path: Path) -> str:
    path = tmp_path / "python-old"
    path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    path.chmod(0o755)
    return str(path)


def test_wrong_python_is_named(tmp_path, old_python):
    result = set_up(tmp_path, AVAR_PYTHON=old_python)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "needs Python 3.11" in result.stderr and "Python 3.9.1" in result.stderr


def test_full_disk_is_named(tmp_path):
    result = set_up(tmp_path, AVAR_NEED_GB="99999999")
    assert result.returncode == 1
    assert "no disk space" in result.stderr and "99999999 GB needed" in result.stderr


def test_unknown_profile_is_named(tmp_path):
    result = set_up(tmp_path, AVAR_PROFILE="tpu")
    assert result.returncode == 1
    assert "AVAR_PROFILE is 'tpu'" in result.stderr


def test_no_network_is_named_and_nothing_is_stamped_done(tmp_path):
    nowhere = "http://127.0.0.1:9/"  # the discard port: nothing listens there
    result = set_up(
        tmp_path,
        PIP_CONFIG_FILE=os.devnull,
        PIP_FIND_LINKS="",
        PIP_INDEX_URL=nowhere,
        PIP_RETRIES="0",
        AVAR_TORCH_INDEX=nowhere,
    )
    assert result.returncode == 1
    assert "no network" in result.stderr
    assert f"do not offer torch==2.13.0+cpu; adding {nowhere}" in result.stdout  # the second index was tried
    assert not (tmp_path / "venv/.avar-stamp").exists()


def test_the_gpu_profile_pins_what_builds_our_package_and_no_flash_attention():
    lines = (ROOT / "requirements/gpu.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert int(pins["setuptools"].split(".")[0]) >= 77 and pins["wheel"]  # `license = "Apache-2.0"` needs 77
    assert "flash-attn" not in pins  # no wheel exists for this torch; building one takes hours
