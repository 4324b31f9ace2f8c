"""Compiles the Triton kernels of span mass for sm_90 without a GPU, one line each; run by test_span_mass_kernel.py."""

import warnings

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from avar_rl.attention.span_mass import triton_kernel

warnings.simplefilter("ignore")
TYPES = dict.fromkeys(["QUERY", "KEY", "DK"], "*bf16")
TYPES |= dict.fromkeys(["BITS", "POSITIONS", "FIRST", "BLOCKS", "RANKS"], "*i32")
TYPES |= dict.fromkeys(["LSE", "LSE_Q", "MASS", "GRAD", "DQ", "MEMBER"], "*fp32") | {"scale": "fp32"}


def compile_kernel(kernel, types=TYPES, warps=8, stages=2, **constants) -> None:
    constants |= dict(D=128, BLOCK_D=128, BLOCK_Q=64, BLOCK_K=64, WIDEN=False)
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages})
    print(f"compiled {kernel.__name__}: {len(compiled.asm['cubin'])} bytes, {compiled.metadata.shared} bytes shared")


compile_kernel(triton_kernel.log_sum_exp, warps=4, stages=3)
for known_lse in (False, True):
    compile_kernel(triton_kernel.masses, warps=4, stages=3, S=2, KNOWN_LSE=known_lse)
compile_kernel(triton_kernel.backward_query, S=2)
compile_kernel(triton_kernel.backward_key, S=2)
compile_kernel(triton_kernel.backward_key, TYPES | dict.fromkeys(["QUERY", "KEY", "DK"], "*fp16"), S=2)
