"""Which dtype `auto` is, and where."""

from __future__ import annotations

import pytest

from rlhf_cluster.precision import dtype_of, multiplies_bfloat16


@pytest.mark.parametrize(
    ("cpuinfo", "has_it"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 sha_ni", True),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile", True),
        ("Features\t: fp asimd i8mm bf16", True),
        ("flags\t\t: fpu avx2 avx512f\nmodel name\t: without", False),
        ("", False),
    ],
)
def test_a_cpu_is_asked_for_instructions_and_not_for_its_name(cpuinfo, has_it):
    assert multiplies_bfloat16(cpuinfo) is has_it


def test_auto_is_bfloat16_on_a_gpu_and_what_is_asked_for_holds_anywhere():
    assert dtype_of("auto", gpus=1) == dtype_of("bf16", gpus=0) == "bfloat16"
    assert dtype_of("fp32", gpus=1) == "float32"
