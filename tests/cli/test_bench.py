"""`bench` prints the measurement as text or strict JSON, and refuses options that do not apply to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lrwd_sweep.errors import DeviceError
from lrwd_sweep.lab.bench import measurement, race, scaling
from lrwd_sweep.lab.bench.measurement import Measurement
from lrwd_sweep.spec.catalog import DATA_SETS
from tests.cli.conftest import Run
from tests.lab.bench import made_up

ASKED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return made-up results, on an idle machine."""

    def pretend(result: Any) -> Any:
        def measure(*arguments: Any, **options: Any) -> Any:
            ASKED.clear()
            ASKED.update(options, arguments=arguments)
            return result

        return measure

    monkeypatch.setattr(race, "race", pretend(made_up.race()))
    monkeypatch.setattr(scaling, "scale", pretend(made_up.scaling()))
    monkeypatch.setattr(scaling, "overhead", pretend(made_up.overhead()))
    monkeypatch.setattr(measurement, "load", lambda: 0.1)


def raced() -> tuple[list[str], Measurement]:
    names, asked = ASKED["arguments"]
    return names, asked


def words(text: str) -> str:
    return " ".join(text.split())


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def test_default_race_shows_rates_ratios_and_the_floor(run: Run) -> None:
    shown = run("bench")
    assert (shown.code, shown.err) == (0, "")
    rows = {line.split(":")[0].strip(): words(line) for line in shown.out.splitlines()}
    assert rows["lrwd-sweep"] == "lrwd-sweep: as grid runs it 363 8,400 (8,000 – 8,800)"
    assert rows["plain"].endswith("16 1,050 (1,000 – 1,100) 8.0×")
    assert rows["vmap"].endswith("not available")
    assert "vmap is not available: RuntimeError: [/x] is no batching rule" in shown.out
    assert "15.0 MFLOP, 40% of them for validation, at 240 GFLOP/s" in words(shown.out)
    assert "reaches 52 % (50 – 55) of that, 126 GFLOP/s" in words(shown.out)
    assert "digits, mlp-norm, AdamW, 30 epochs of 6 batches of 64" in words(shown.out)
    names, asked = raced()
    assert names == ["lrwd-sweep", "plain", "compiled", "processes", "vmap"]
    assert (ASKED["lanes"], ASKED["other_lanes"], ASKED["repeats"]) == (3 * len(asked.lattice), 16, 3)


def test_narrow_terminal_hides_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    for option in ((), ("--scaling",), ("--overhead",)):
        shown = run("bench", *option)
        assert (shown.code, shown.err) == (0, ""), option
        assert "…" not in shown.out, option
        assert max(map(len, shown.out.splitlines())) <= 30, option


def test_contenders_task_device_and_numbers_can_be_chosen(run: Run) -> None:
    done = run(
        *("bench", "--contenders", "vmap, plain", "--net", "resnet20", "--epochs", "1", "--device", "cpu"),
        *("--data", "cifar10", "--batch-size", "128", "--precision", "bfloat16"),
        *("--lanes", "5", "--other-lanes", "4", "--repeats", "2"),
    )
    assert (done.code, done.err) == (0, "")
    names, asked = raced()
    task = asked.task
    assert names == ["lrwd-sweep", "plain", "vmap"]
    assert (task.data_set, task.steps_per_epoch) == (DATA_SETS["cifar10"], 351)
    assert (task.net, task.precision, asked.device) == ("resnet20", "bfloat16", "cpu")
    assert (ASKED["lanes"], ASKED["other_lanes"], ASKED["repeats"]) == (5, 4, 2)
    assert "synthetic:cifar10, resnet20, bfloat16, AdamW, 1 epoch of 351 batches of 128" in words(done.out)


def test_gpu_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.device.choose", lambda name: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"A card [of] {80 * place.index} GB")
    for option in ((), ("--scaling",)):
        shown = run("bench", *option)
        assert (shown.code, shown.err) == (0, ""), option
        assert "; A card [of] 80 GB, torch " in words(shown.out), option
        assert ASKED["arguments"][-1].device == "cuda:1", option
        found = strict(run("bench", *option, "--format", "json").out)
        assert found["machine"]["gpu"] == "A card [of] 80 GB", option
    run("bench")
    assert raced()[0][3] == "graphs"


def test_missing_gpu_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    shown = run("bench", "--device", "cuda")
    assert shown.code == DeviceError.exit_code
    assert shown.err.startswith("lrwd-sweep: --device cuda: this machine has 0 CUDA devices")


def test_json_is_strict_and_names_machine_and_task(run: Run) -> None:
    shown = run("bench", "--format", "json")
    assert (shown.code, shown.err) == (0, "")
    document = strict(shown.out)
    former = strict(run("bench", "--json").out)
    assert former["contenders"] == document["contenders"]
    assert document["schema_version"] == 1
    assert document["machine"].keys() >= {"cpu", "cores", "torch", "date", "load"}
    assert document["machine"]["gpu"] is None
    task = document["task"]
    assert (task["epochs"], task["steps"], task["repeats"]) == (30, 180, 3)
    assert [c["name"] for c in document["contenders"]] == ["lrwd-sweep", "plain", "vmap"]
    assert document["contenders"][1]["engine_ratio"]["median"] == 8.0
    assert document["contenders"][2]["reason"].startswith("RuntimeError")
    assert document["floor"]["fraction_reached"]["median"] == pytest.approx(0.525)


def test_scaling_shows_its_points_and_the_line(run: Run) -> None:
    shown = run("bench", "--scaling")
    assert (shown.code, shown.err) == (0, "")
    assert "2000 21.5 (20.5 – 22.6) 0.179 (0.171 – 0.188)" in words(shown.out)
    assert "from 50 on they take 0.525 s + 10.5 ms per lane" in words(shown.out)
    assert (ASKED["most"], ASKED["arguments"][0].task.epochs) == (2000, 10)
    found = strict(run("bench", "--scaling", "--format", "json", "--lanes", "50").out)["scaling"]
    assert (found["at_once"], found["line"]["from_lanes"], ASKED["most"]) == (32, 50, 50)


def test_overhead_shows_start_sampler_and_store(run: Run) -> None:
    shown = run("bench", "--overhead")
    assert (shown.code, shown.err) == (0, "")
    assert "from the start of the process to the end of an epoch 2.25 s (2.00 – 2.50)" in words(shown.out)
    assert "both, per lane, of 10,000 0.600 ms (0.500 – 0.700)" in words(shown.out)
    assert strict(run("bench", "--overhead", "--format", "json").out)["overhead"]["lanes"] == 10_000
    assert ASKED["lanes"] == 10_000


REFUSED = {
    "--scaling --overhead": "--scaling and --overhead are two measurements; choose one",
    "--scaling --contenders plain": "--scaling does not use --contenders; leave it out",
    "--scaling --other-lanes 3": "--scaling does not use --other-lanes; leave it out",
    "--overhead --epochs 3": "--overhead does not use --epochs; leave it out",
    "--overhead --data svhn": "--overhead does not use --data; leave it out",
    "--overhead --net cnn": "--overhead does not use --net; leave it out",
    "--device cpu --contenders graphs": "--contenders graphs runs only on cuda, not on cpu; leave it out",
    "--precision float16": "unknown precision 'float16'",
    "--batch-size 401": "--batch-size 401 is larger than the training set of digits",
    "--contenders plane": "unknown contender 'plane'; did you mean plain?",
    "--contenders ray": "unknown contender 'ray'; known: lrwd-sweep, plain, compiled, ",
    "--net mlp-nor": "unknown network 'mlp-nor'; did you mean mlp-norm or mlp?",
    "--lanes 0": "--lanes 0 is too small; choose at least 1",
    "--bandwidth": "",  # removed
    "--output a.svg": "",
}


def test_unusable_options_are_refused_in_one_line(run: Run) -> None:
    for options, error in REFUSED.items():
        shown = run("bench", *options.split())
        assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1), (options, shown)
        assert shown.err.startswith(f"lrwd-sweep: {error}"), (options, shown.err)


def test_busy_machine_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "load", lambda: 2.5)
    shown = run("bench")
    assert shown.code == 0
    assert shown.err.startswith("the machine is busy, load 2.5 on ")
    assert shown.err.count("\n") == 1
