"""Lets torchvision's CUDA build import beside a CPU torch.

PyPI's torchvision cannot load its C++ operators there, and then fails to import at all, because it registers fake
kernels for operators that do not exist. Declaring those two operators is enough; the transforms that we use need
neither.

recipes/setup.sh copies this file into the virtual environment, with a `.pth` line importing it so that every process
(Ray and vLLM workers too) has it, and only where `import torchvision` failed. torchvision's own CPU build needs none
of this.
"""

import importlib.abc
import sys

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _DeclareOperators(importlib.abc.MetaPathFinder):
    """Finds nothing: on the first look-up of torchvision it declares the operators and removes itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in OPERATORS:
                torch.library.define(f"torchvision::{operator}", SCHEMA)
        return


sys.meta_path.insert(0, _DeclareOperators())
