"""Fixtures shared by all tests: nothing is downloaded, everything is made here from seeds."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

if not torch.cuda.is_available():
    # Triton makes its own library interpretable, or not, when it is imported. Not for the processes that tests start.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton.language  # noqa: F401


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory):
    """Folder with `data/*.parquet` of a small miniature world and `base/`, an untrained miniature Qwen2.5-VL."""
    from data_tools import tiny, tiny_model

    folder = tmp_path_factory.mktemp("tiny_world")
    sizes = ["--sft-rows", "400", "--rl-rows", "64"]
    tiny.main(["--out", str(folder / "data"), "--seed", "0", *sizes])
    tiny_model.main(["--out", str(folder / "base"), "--data", str(folder / "data"), "--seed", "0"])
    return folder
