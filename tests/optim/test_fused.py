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

from lrwd_sweep.optim import fastest
from lrwd_sweep.optim.fastest import agrees, by_kernels
from lrwd_sweep.optim.fused import FusedUpdate
from lrwd_sweep.optim.fused_projection import FusedProjection
from lrwd_sweep.science.decay import DecayRule
from tests.optim.interpreted import CASES, COLUMNS, tabled
from tests.optim.problem import VARIANTS

pytest.importorskip("triton")
NAMES = [f"{variant} {rule}" for variant, rule in CASES]
PROJECTED = [name for name in NAMES if name.startswith(("sgdp", "adamp"))]


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
    if "arange's arguments must be of type tl.constexpr" in done.stderr:
        pytest.skip("this Triton, as 3.0, interprets no constants of functions that a kernel calls")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert sorted(found["cases"]) == sorted(NAMES)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_follows_torch_under_every_rule(name: str, interpreted: dict[str, Any]) -> None:
    assert interpreted["cases"][name]["error"] < 1e-6
    assert interpreted["cases"][name]["moved"] > 0  # every number of every lane


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_that_dies_stays_and_changes_no_bit_of_its_neighbours(
    name: str, interpreted: dict[str, Any]
) -> None:
    assert interpreted["cases"][name]["stays"]
    assert interpreted["cases"][name]["apart"]


@pytest.mark.parametrize("name", PROJECTED)
def test_kernels_project_as_often_as_torch(name: str, interpreted: dict[str, Any]) -> None:
    by_torch, by_kernels = interpreted["cases"][name]["projected"]
    assert by_kernels == by_torch
    assert 0 < by_torch[0] < 1


def test_the_comparison_knows_good_kernels_from_wrong_ones(interpreted: dict[str, Any]) -> None:
    said = interpreted["check"]
    assert {name for name, agrees in said.items() if agrees} == {"good", "projected"}
    assert len(said) == 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kernel_compiles_for_a_gpu(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from triton.compiler import ASTSource, compile  # type: ignore[import-untyped,import-not-found,unused-ignore]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    update = by_kernels(tabled(variant, DecayRule.CORRECTED, other=True), COLUMNS)
    assert isinstance(update, FusedUpdate | FusedProjection)
    theta = torch.zeros(3, COLUMNS)
    died_at, t = torch.zeros(3, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for kernel, _, arguments, modes in update.launches(theta, theta, t, died_at):
        constants = {name: value for name, value in modes.items() if name in kernel.arg_names}
        signature = dict(zip(kernel.arg_names, map(_kind, arguments), strict=False))
        source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
        options = {"enable_fp_fusion": True, "num_warps": modes.get("num_warps", 4)}
        made = compile(source, GPUTarget("cuda", 80, 32), options)
        assert "ld.global" in made.asm["ptx"]


def _kind(argument: object) -> str:
    """A type as Triton writes it."""
    if isinstance(argument, torch.Tensor):
        kinds = {torch.float32: "fp32", torch.float64: "fp64", torch.int64: "i64", torch.uint8: "u8"}
        return f"*{kinds[argument.dtype]}"
    return "i32" if isinstance(argument, int) else "fp32"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("variant", "rule"), CASES)
def test_on_a_gpu_kernels_are_taken(variant: str, rule: DecayRule) -> None:
    update = tabled(variant, rule, other=True, device="cuda")
    theta = torch.zeros(3, COLUMNS, device="cuda")
    assert isinstance(fastest(update, theta), FusedUpdate | FusedProjection)


def test_without_a_gpu_torch_is_taken() -> None:
    update = tabled("adam", DecayRule.COUPLED, other=False)
    assert fastest(update, torch.zeros(3, COLUMNS)) is update
    assert not agrees(update, COLUMNS)  # nothing to run the kernel on: an answer, not an error


@pytest.mark.parametrize("variant", ["adam", "adamp"])
@pytest.mark.parametrize("name", ["triton", "lrwd_sweep.optim.kernels"])
def test_without_triton_torch_is_taken(name: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lrwd_sweep.optim.kernels", "lrwd_sweep.optim.projected_kernels"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    assert not agrees(tabled(variant, DecayRule.INDEPENDENT, other=False), COLUMNS)
