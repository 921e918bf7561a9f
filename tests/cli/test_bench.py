"""`bench` prints what was measured, as text or as strict JSON, and refuses options that it has no use for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lrwd_sweep.errors import DeviceError
from lrwd_sweep.lab.bench import bandwidth, machine, overhead, race, scaling
from lrwd_sweep.spec.catalog import DATA_SETS
from tests.cli.conftest import Run
from tests.lab.bench import made_up

ASKED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is idle."""

    def pretend(result: Any) -> Any:
        def measure(*arguments: Any, **options: Any) -> Any:
            ASKED.clear()
            ASKED.update(options, arguments=arguments)
            return result

        return measure

    monkeypatch.setattr(race, "race", pretend(made_up.race()))
    monkeypatch.setattr(scaling, "scale", pretend(made_up.scaling()))
    monkeypatch.setattr(overhead, "overhead", pretend(made_up.overhead()))
    monkeypatch.setattr(bandwidth, "measure", pretend(made_up.bandwidths()))
    monkeypatch.setattr(machine, "load", lambda: 0.1)


def test_a_race_shows_rates_ratios_and_the_floor(run: Run) -> None:
    shown = run("bench")
    assert (shown.code, shown.err) == (0, "")
    rows = {line.split(":")[0].strip(): " ".join(line.split()) for line in shown.out.splitlines()}
    assert rows["lrwd-sweep"] == "lrwd-sweep: as grid runs it 363 8,400 (8,000 – 8,800)"
    assert rows["plain"].endswith("16 1,050 (1,000 – 1,100) 8.0× (8.0 – 8.0)")
    assert rows["vmap"].endswith("not available")
    assert "vmap is not available: RuntimeError: [/x] is no batching rule" in shown.out
    assert "15.0 MFLOP, 40% of them for validation, at 240 (240 – 240) GFLOP/s" in " ".join(shown.out.split())
    assert "reaches 52 % (50 – 55) of that, 126 GFLOP/s" in " ".join(shown.out.split())
    assert "digits, mlp-norm, AdamW, 30 epochs of 6 batches of 64" in shown.out


@pytest.mark.parametrize("measurement", [(), ("--scaling",), ("--overhead",), ("--bandwidth",)])
def test_a_narrow_terminal_hides_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, measurement: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    shown = run("bench", *measurement)
    assert (shown.code, shown.err) == (0, "")
    assert "…" not in shown.out
    assert max(map(len, shown.out.splitlines())) <= 30


def test_the_default_race_is_the_whole_lattice_against_everyone(run: Run) -> None:
    run("bench")
    entries, task, lattice = ASKED["arguments"]
    assert len(entries) == 6
    assert (ASKED["lanes"], ASKED["other_lanes"], ASKED["repeats"]) == (3 * len(lattice), 16, 3)
    assert (task.net, task.data) == ("mlp-norm", "digits")


def test_contenders_network_and_numbers_can_be_chosen(run: Run) -> None:
    done = run(
        *("bench", "--contenders", "vmap, plain", "--net", "cnn-norm", "--epochs", "3"),
        *("--lanes", "5", "--other-lanes", "4", "--repeats", "2"),
    )
    assert done.code == 0
    entries, task, _ = ASKED["arguments"]
    assert [entry.name for entry in entries] == ["lrwd-sweep", "plain", "vmap"]
    assert (task.net, task.epochs) == ("cnn-norm", 3)
    assert (ASKED["lanes"], ASKED["other_lanes"], ASKED["repeats"]) == (5, 4, 2)


def test_task_and_device_can_be_chosen(run: Run) -> None:
    done = run(
        *("bench", "--device", "cpu", "--data", "cifar10", "--net", "resnet20"),
        *("--batch-size", "128", "--precision", "bfloat16", "--epochs", "1"),
    )
    assert (done.code, done.err) == (0, "")
    task = ASKED["arguments"][1]
    assert (task.data_set, task.steps_per_epoch) == (DATA_SETS["cifar10"], 351)
    assert (task.net, task.precision, ASKED["device"]) == ("resnet20", "bfloat16", "cpu")
    said = "made_up:cifar10, resnet20, bfloat16, AdamW, 1 epoch of 351 batches of 128"
    assert said in " ".join(done.out.split())


@pytest.mark.parametrize("scaling", [(), ("--scaling",)])
def test_on_a_gpu_it_is_the_gpu_that_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, scaling: tuple[str, ...]
) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.device.choose", lambda name: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"A card [of] {80 * place.index} GB")
    shown = run("bench", *scaling)
    assert (shown.code, shown.err) == (0, "")
    assert "; A card [of] 80 GB, torch " in " ".join(shown.out.split())
    assert ASKED["device"] == "cuda:1"
    assert strict(run("bench", *scaling, "--json").out)["machine"]["gpu"] == "A card [of] 80 GB"
    if not scaling:
        assert [entry.name for entry in ASKED["arguments"][0]][3] == "graphs"


def test_without_a_gpu_none_can_be_raced_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    shown = run("bench", "--device", "cuda")
    assert shown.code == DeviceError.exit_code
    assert shown.err.startswith("lrwd-sweep: --device cuda: this machine has 0 CUDA devices")


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict_and_says_where_and_what(run: Run) -> None:
    shown = run("bench", "--json")
    assert (shown.code, shown.err) == (0, "")
    document = strict(shown.out)
    assert document["schema_version"] == 1
    assert document["machine"].keys() >= {"cpu", "cores", "torch", "date", "load"}
    assert document["machine"]["gpu"] is None
    assert (document["task"]["epochs"], document["task"]["steps"], document["task"]["repeats"]) == (
        30,
        180,
        3,
    )
    assert [c["name"] for c in document["contenders"]] == ["lrwd-sweep", "plain", "vmap"]
    assert document["contenders"][1]["engine_ratio"]["median"] == 8.0
    assert document["contenders"][2]["reason"].startswith("RuntimeError")
    assert document["floor"]["fraction_reached"]["median"] == pytest.approx(0.525)


def test_scaling_shows_a_chart_its_points_and_the_line(run: Run) -> None:
    shown = run("bench", "--scaling")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("seconds (log) by lanes (log), median of 2 runs\n")
    rows = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "2000 21.5 (20.5 – 22.6) 0.179 (0.171 – 0.188)" in rows
    assert "from 50 on they take 0.525 s + 10.5 ms per lane" in " ".join(rows)
    assert ASKED["most"] == 2000
    assert ASKED["arguments"][0].epochs == 10


@pytest.mark.parametrize("name", ["a.svg", "a.png", "a.pdf"])
def test_scaling_is_drawn_into_a_file_too(run: Run, tmp_path: Path, name: str) -> None:
    shown = run("bench", "--scaling", "--json", "--lanes", "50", "--output", name)
    assert (shown.code, shown.err) == (0, f"wrote {name}\n")
    assert (tmp_path / name).stat().st_size > 1000
    assert strict(shown.out)["scaling"]["line"]["from_lanes"] == 50
    assert ASKED["most"] == 50


def test_a_file_that_cannot_be_drawn_is_refused_before_anything_is_measured(run: Run) -> None:
    ASKED.clear()
    shown = run("bench", "--scaling", "--output", "a.gif")
    assert shown.code == 2
    assert shown.err == "lrwd-sweep: unknown figure format '.gif'; known: .svg, .pdf, .png\n"
    assert not ASKED


def test_overhead_shows_start_sampler_and_store(run: Run) -> None:
    shown = run("bench", "--overhead")
    assert (shown.code, shown.err) == (0, "")
    rows = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "from the start of the process to the end of an epoch 2.25 s (2.00 – 2.50)" in rows
    assert "both, per lane, of 10,000 0.600 ms (0.500 – 0.700)" in rows
    assert strict(run("bench", "--overhead", "--json").out)["overhead"]["lanes"] == 10_000
    assert ASKED["lanes"] == 10_000


def test_bandwidth_shows_every_update_beside_a_copy(run: Run) -> None:
    shown = run("bench", "--bandwidth", "--repeats", "5")
    assert (shown.code, shown.err) == (0, "")
    rows = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "adamw kernels 3,600 90%" in rows
    assert "sgdw torch's operators 1,000 25%" in rows
    assert rows[-1].startswith("A card of 80 GB, torch ")
    assert ASKED["arguments"] == (5,)
    found = strict(run("bench", "--bandwidth", "--json").out)["bandwidth"]
    assert [one["share"] for one in found["optimizers"]] == [0.25, 0.9]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--scaling", "--overhead"), "--scaling and --overhead are two measurements; choose one"),
        (("--scaling", "--contenders", "plain"), "--contenders means nothing to --scaling; leave it out"),
        (("--scaling", "--other-lanes", "3"), "--other-lanes means nothing to --scaling; leave it out"),
        (("--overhead", "--epochs", "3"), "--epochs means nothing to --overhead; leave it out"),
        (("--bandwidth", "--lanes", "3"), "--lanes means nothing to --bandwidth; leave it out"),
        (("--bandwidth", "--device", "cuda"), "--device means nothing to --bandwidth; leave it out"),
        (("--overhead", "--data", "svhn"), "--data means nothing to --overhead; leave it out"),
        (
            ("--device", "cpu", "--contenders", "graphs"),
            "--contenders graphs races on cuda alone",
        ),
        (("--precision", "float16"), "unknown precision 'float16'"),
        (("--batch-size", "401"), "--batch-size 401 is larger than the training set of digits"),
        (("--bandwidth", "--overhead"), "--overhead and --bandwidth are two measurements; choose one"),
        (("--overhead", "--net", "cnn"), "--net means nothing to --overhead; leave it out"),
        (("--output", "a.svg"), "--output means nothing to a race; leave it out"),
        (("--contenders", "plane"), "unknown contender 'plane'; did you mean plain?"),
        (("--contenders", ""), "unknown contender ''; known: lrwd-sweep, plain, compiled, "),
        (("--net", "mlp-nor"), "unknown network 'mlp-nor'; did you mean mlp-norm or mlp?"),
        (("--lanes", "0"), "--lanes 0 is too small; choose at least 1"),
    ],
)
def test_what_makes_no_sense_is_one_line(run: Run, options: tuple[str, ...], complaint: str) -> None:
    shown = run("bench", *options)
    assert shown.code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith(f"lrwd-sweep: {complaint}")


def test_a_busy_machine_is_pointed_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "load", lambda: 2.5)
    shown = run("bench")
    assert shown.code == 0
    assert shown.err.startswith("the machine is busy, load 2.5 on ")
    assert shown.err.count("\n") == 1
