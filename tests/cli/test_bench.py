"""`bench` prints the measurement as text or strict JSON, and refuses options that do not apply to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lrwd_sweep.engine import device
from lrwd_sweep.lab import bench
from lrwd_sweep.lab.bench import Measurement
from lrwd_sweep.spec.catalog import DATA_SETS
from tests.cli.conftest import Run, strict
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

    monkeypatch.setattr(bench, "race", pretend(made_up.race()))
    monkeypatch.setattr(bench, "scale", pretend(made_up.scaling()))
    monkeypatch.setattr(bench, "overhead", pretend(made_up.overhead()))
    monkeypatch.setattr(device, "load", lambda: 0.1)


def raced() -> tuple[list[str], Measurement]:
    names, asked = ASKED["arguments"]
    return names, asked


def words(text: str) -> str:
    return " ".join(text.split())


def test_default_race_is_shown_with_its_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(device, "load", lambda: 2.5)
    assert run("bench").err.startswith("the machine is busy, load 2.5 on ")
    monkeypatch.setattr("lrwd_sweep.engine.device.choose", lambda name: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"A card [of] {80 * place.index} GB")
    assert "; A card [of] 80 GB, torch " in words(run("bench").out)
    assert raced()[0][3] == "graphs"
    assert (ASKED["lanes"], ASKED["other_lanes"], ASKED["repeats"]) == (3 * len(asked.lattice), 16, 3)


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


def test_json_is_strict_and_names_machine_and_task(run: Run) -> None:
    shown = run("bench", "--format", "json")
    assert (shown.code, shown.err) == (0, "")
    document = strict(shown.out)
    former = strict(run("bench", "--json").out)
    assert former["contenders"] == document["contenders"]
    assert (document["schema_version"], document["machine"]["gpu"]) == (1, None)
    assert document["machine"].keys() >= {"cpu", "cores", "torch", "date", "load"}
    task, (_, plain, vmap) = document["task"], document["contenders"]
    assert (task["epochs"], task["steps"], task["repeats"]) == (30, 180, 3)
    assert (plain["engine_ratio"]["median"], vmap["reason"][:12]) == (8.0, "RuntimeError")
    assert document["floor"]["fraction_reached"]["median"] == pytest.approx(0.525)


def test_scaling_and_overhead_are_shown_at_any_width(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("bench", "--scaling")
    assert (shown.code, shown.err) == (0, "")
    assert "2000 21.5 (20.5 – 22.6) 0.179 (0.171 – 0.188)" in words(shown.out)
    assert "from 50 on they take 0.525 s + 10.5 ms per lane" in words(shown.out)
    assert (ASKED["most"], ASKED["arguments"][0].task.epochs) == (2000, 10)
    found = strict(run("bench", "--scaling", "--format", "json", "--lanes", "50").out)["scaling"]
    assert (found["at_once"], found["line"]["from_lanes"], ASKED["most"]) == (32, 50, 50)
    monkeypatch.setenv("COLUMNS", "30")
    narrow = run("bench", "--overhead")
    assert max(map(len, narrow.out.splitlines())) <= 30
    monkeypatch.delenv("COLUMNS")
    shown = run("bench", "--overhead")
    assert (narrow.code, shown.code, shown.err) == (0, 0, "")
    assert "from the start of the process to the end of an epoch 2.25 s (2.00 – 2.50)" in words(shown.out)
    assert "both, per lane, of 10,000 0.600 ms (0.500 – 0.700)" in words(shown.out)
    assert strict(run("bench", "--overhead", "--format", "json").out)["overhead"]["lanes"] == 10_000
    assert ASKED["lanes"] == 10_000


def test_optimizers_are_timed_relative_to_the_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"sgdw": 100.0, "adamw:cautious": 50.0}
    monkeypatch.setattr(bench.Measurement, "in_process", lambda one, *_: {"rate": rates[one.optimizer]})
    asked = ("bench", "--optimizers", "sgdw,adamw:cautious", "--lanes", "4", "--repeats", "2")
    assert "adamw:cautious 50 20,000 2.00" in words(run(*asked).out)
    found = strict(run(*asked, "--format", "json").out)["optimizers"]
    assert [one["cost"]["median"] for one in found] == [1.0, 2.0]
    for option, said in (("--scaling", "two measurements"), ("--contenders=plain", "does not use")):
        refused = run(*asked, option)
        assert (refused.code, said in refused.err) == (2, True)
