"""Multiplies two matrices on every GPU with PyTorch and compares with the processor.

Exit status 77: PyTorch is not here.
"""
import sys

try:
    import torch
except ImportError as e:
    print(f"PyTorch cannot be imported in the container: {e}")
    sys.exit(77)

if not torch.cuda.is_available():
    sys.exit(f"PyTorch {torch.__version__} finds no GPU")
torch.manual_seed(1)
a, b = torch.randn(512, 512), torch.randn(512, 512)
want = a @ b
for i in range(torch.cuda.device_count()):
    got = (a.to(f"cuda:{i}") @ b.to(f"cuda:{i}")).cpu()
    if not torch.allclose(got, want, rtol=1e-2, atol=1e-2):
        sys.exit(f"GPU {i}: the product is wrong by up to {(got - want).abs().max()}")
print(f"PyTorch {torch.__version__}: the product of two matrices is right on {torch.cuda.device_count()} GPUs")
