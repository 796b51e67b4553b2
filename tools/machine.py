"""What the bits of a training depend on beside its versions: the processor, and variables that choose its kernels."""

import os
import platform
from pathlib import Path

import torch

# Each of them makes a machine another one.
KERNEL_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "MKL_CBWR",
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
)


def processor():
    """This machine's processor, and the instructions that torch uses on it: "AMD EPYC 9654 Processor, AVX512"."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):  # another system than Linux on x86-64
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def variables():
    """Those of KERNEL_VARIABLES that are set: "ATEN_CPU_CAPABILITY=avx2"; empty if none is."""
    return " ".join(f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if name in os.environ)
