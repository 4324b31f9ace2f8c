"""Compiles the Triton kernels of span mass for sm_90 without a GPU, one line each; run by test_span_mass_kernel.py."""

import warnings

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from avar_rl.attention.span_mass import triton_kernel

warnings.simplefilter("ignore")
TYPES = dict.fromkeys(["QUERY", "KEY", "DK"], "*bf16")
TYPES |= dict.fromkeys(["BITS", "POSITIONS", "FIRST", "BLOCKS", "COUNTS"], "*i32")
TYPES |= dict.fromkeys(["LSE", "MASS", "GRAD", "BASE", "DQ"], "*fp32") | dict.fromkeys(["scale", "scale_log2"], "fp32")


def compile_kernel(kernel, types=TYPES, **constants) -> None:
    constants |= dict(S=2, D=128, BLOCK_D=128, BLOCK_Q=64, BLOCK_K=64, WIDEN=False)
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8, "num_stages": 2})
    print(f"compiled {kernel.__name__}: {len(compiled.asm['cubin'])} bytes, {compiled.metadata.shared} bytes shared")


for known_lse in (False, True):
    compile_kernel(triton_kernel.forward, COLUMNS=2, KNOWN_LSE=known_lse)
compile_kernel(triton_kernel.backward_query)
compile_kernel(triton_kernel.backward_key)
compile_kernel(triton_kernel.backward_key, TYPES | dict.fromkeys(["QUERY", "KEY", "DK"], "*fp16"))
