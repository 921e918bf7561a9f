"""One kernel does what torch's operators do, to rounding, and is taken only where it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lrwd_sweep.decay import DecayRule
from lrwd_sweep.optim import fastest
from lrwd_sweep.optim.fused import FusedUpdate, agrees
from tests.optim.interpreted import COLUMNS, ELEMENTWISE, tabled

pytest.importorskip("triton")
CASES = [f"{variant} {rule}" for variant in ELEMENTWISE for rule in DecayRule]


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    """What Triton's interpreter makes of the kernels on the host."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.optim.interpreted"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert sorted(found["cases"]) == sorted(CASES)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_follows_torch_under_every_rule(name: str, interpreted: dict[str, Any]) -> None:
    assert interpreted["cases"][name]["error"] < 1e-6
    assert interpreted["cases"][name]["moved"] > 0  # every number of every lane


@pytest.mark.parametrize("name", CASES)
def test_a_lane_that_dies_stays_and_changes_no_bit_of_its_neighbours(
    name: str, interpreted: dict[str, Any]
) -> None:
    assert interpreted["cases"][name]["stays"]
    assert interpreted["cases"][name]["apart"]


def test_the_comparison_knows_a_good_kernel_from_a_wrong_one(interpreted: dict[str, Any]) -> None:
    wrong = dict.fromkeys(("other rule", "normalised", "raises"), False)
    assert interpreted["check"] == {"good": True, **wrong}


@pytest.mark.parametrize("variant", ELEMENTWISE)
def test_every_kernel_compiles_for_a_gpu(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from triton.compiler import ASTSource, compile  # type: ignore[import-untyped,import-not-found,unused-ignore]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    update = tabled(variant, DecayRule.CORRECTED, other=True)
    fused = FusedUpdate.of(update, COLUMNS)
    theta = torch.zeros(3, COLUMNS)
    died_at, t = torch.zeros(3, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    arguments = fused.arguments_of(theta, theta, t, died_at)
    modes = {name: value for name, value in fused.modes.items() if name in fused.kernel.arg_names}
    signature = dict(zip(fused.kernel.arg_names, map(_kind, arguments), strict=False))
    source = ASTSource(fused.kernel, signature | dict.fromkeys(modes, "constexpr"), modes)
    made = compile(source, GPUTarget("cuda", 80, 32), {"enable_fp_fusion": True})
    assert "ld.global" in made.asm["ptx"]


def _kind(argument: object) -> str:
    """A type as Triton writes it."""
    if isinstance(argument, torch.Tensor):
        return {torch.float32: "*fp32", torch.int64: "*i64", torch.uint8: "*u8"}[argument.dtype]
    return "i32" if isinstance(argument, int) else "fp32"


def test_without_a_gpu_torch_is_taken() -> None:
    update = tabled("adam", DecayRule.COUPLED, other=False)
    assert fastest(update, torch.zeros(3, COLUMNS)) is update
    assert not agrees(update, COLUMNS)  # nothing to run the kernel on: an answer, not an error


@pytest.mark.parametrize("name", ["triton", "lrwd_sweep.optim.kernels"])
def test_without_triton_torch_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lrwd_sweep.optim.kernels", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    assert not agrees(tabled("adam", DecayRule.COUPLED, other=False), COLUMNS)
