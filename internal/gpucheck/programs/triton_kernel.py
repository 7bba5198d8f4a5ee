"""Compiles a kernel with Triton, which looks for libcuda.so.1 itself, and runs it.

Exit status 77: Triton, or the C compiler that it needs, is not here.
"""
import shutil
import sys

try:
    import torch
    import triton
    import triton.language as tl
except ImportError as e:
    print(f"Triton cannot be imported in the container: {e}")
    sys.exit(77)
if not any(map(shutil.which, ("cc", "gcc", "clang"))):
    print("Triton needs a C compiler, and there is none in the container")
    sys.exit(77)


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(out + at, tl.load(x + at, mask=inside) + tl.load(y + at, mask=inside), mask=inside)


n = 100_000
x, y = torch.rand(n, device="cuda"), torch.rand(n, device="cuda")
out = torch.empty_like(x)
add[(triton.cdiv(n, 1024),)](x, y, out, n, BLOCK=1024)
if not torch.equal(out, x + y):
    sys.exit("the sum is wrong")
print(f"Triton {triton.__version__}: a kernel was compiled, and its sums are right")
