"""`bench` measures in random order, `verify` checks: both show the result as text or strict JSON."""

import re
from itertools import count
from unittest.mock import Mock

import pytest
import torch

from lrwd_sweep.engine import device
from lrwd_sweep.errors import HostError
from lrwd_sweep.lab import bench
from lrwd_sweep.lab.bench import ENGINE, Measurement, choose_contenders
from lrwd_sweep.lab.verify import Section, lone_runs, parity
from lrwd_sweep.optim import make_update
from lrwd_sweep.spec.catalog import DATA_SETS
from tests.cli.conftest import Patch, Run, assert_holds, strict
from tests.lab.bench import made_up


@pytest.fixture(autouse=True)
def _little_is_measured_and_checked(monkeypatch: Patch) -> None:
    """Make measurements up, on an idle machine; leave out the long checks, which tests/lab runs."""
    monkeypatch.setattr(Measurement, "in_process", made_up.in_process)
    monkeypatch.setattr(made_up, "runs", count())
    monkeypatch.setattr(bench, "until_first_epoch", count(2.0, 0.5).__next__)
    monkeypatch.setattr(device, "load", lambda: 0.1)
    made_up.RUN.clear()
    monkeypatch.setattr("lrwd_sweep.lab.verify.propositions.EQUILIBRIA", ())
    monkeypatch.setattr(lone_runs, "CASES", lone_runs.CASES[:1])
    monkeypatch.setattr(lone_runs, "parity_of_kfac", lambda _: Section("K-FAC", ("network",), ()))
    monkeypatch.setattr(parity, "REFERENCES", parity.REFERENCES[:1])
    monkeypatch.setattr(parity, "optimizer_names", lambda: ["sgdp"])


def words(text: str) -> str:
    return " ".join(text.split())


def spread(*values: float) -> dict[str, float]:
    return {"median": sorted(values)[len(values) // 2], "low": min(values), "high": max(values)}


def test_race_shows_its_machine_and_ratios_repeat_by_repeat(run: Run, monkeypatch: Patch) -> None:
    shown = run("bench --device cpu", code=0)
    assert "lrwd-sweep: 8,000 lane-steps/s" in shown.err
    rows = {line.split(":")[0].strip(): words(line) for line in shown.out.splitlines()}
    assert rows["lrwd-sweep"] == "lrwd-sweep: as grid runs it 363 8,800 (8,000 – 9,600)"
    assert rows["plain"].endswith("16 1,000 8.8× (8.0 – 9.6)")
    assert rows["vmap"].endswith("not available")
    assert_holds(
        words(shown.out),
        "vmap is not available: bench vmap: RuntimeError: [/x] is no batching rule",
        "15.0 MFLOP, 40% of them for validation, at 240 GFLOP/s",
        "reaches 55 % (50 – 60) of that, 132 GFLOP/s",
        "digits, mlp-norm, AdamW, 30 epochs of 6 batches of 64",
    )
    few = dict.fromkeys(("plain", "compiled", "processes", "vmap"), (16,))
    assert {name: lanes for name, lanes, _ in made_up.RUN} == {**few, ENGINE: (363,), "floor": (1,)}
    assert [name for name, *_ in made_up.RUN].count("vmap") == 1
    monkeypatch.setattr(device, "load", lambda: 2.5)
    assert run("bench").err.startswith("the machine is busy, load 2.5 on ")
    made_up.RUN.clear()
    monkeypatch.setattr(device, "choose", lambda name: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"A card [of] {80 * place.index} GB")
    assert "; A card [of] 80 GB, torch " in words(run("bench").out)
    assert "graphs" in {name for name, *_ in made_up.RUN}
    assert {asked.device for *_, asked in made_up.RUN} == {"cuda:1"}
    assert choose_contenders(None, "cuda") == [ENGINE, "plain", "compiled", "graphs", "vmap"]
    fail = Mock(side_effect=HostError("bench: DeviceError: no room"))
    monkeypatch.setattr(Measurement, "in_process", fail)  # the engine's, too
    assert run("bench", code=3).err.count("no room") == 1


def test_contenders_task_and_numbers_can_be_chosen_and_run_in_the_same_random_orders(run: Run) -> None:
    orders = []
    for _ in range(2):
        made_up.RUN.clear()
        done = run(
            "bench --contenders 'processes, plain' --net resnet20 --epochs 1 --data cifar10 --batch-size 128"
            " --precision bfloat16 --device cpu --lanes 5 --other-lanes 4 --repeats 8"
        )
        task = "synthetic:cifar10, resnet20, bfloat16, AdamW, 1 epoch of 351 batches of 128"
        assert task in words(done.out)
        orders.append([(name, lanes) for name, lanes, _ in made_up.RUN])
    assert orders[0] == orders[1]
    rounds = [tuple(orders[0][k : k + 4]) for k in range(0, 32, 4)]
    expected = [("floor", (1,)), (ENGINE, (5,)), ("plain", (4,)), ("processes", (4,))]
    assert all(sorted(each) == expected for each in rounds)
    assert len(set(rounds)) > 1
    asked = made_up.RUN[0][2]
    chosen = asked.task.data_set, asked.task.precision, asked.device
    assert chosen == (DATA_SETS["cifar10"], "bfloat16", "cpu")


def test_json_is_strict_and_names_machine_and_task(run: Run) -> None:
    document = strict(run("bench --format json --contenders plain,vmap").out)
    assert strict(run("bench --json").out)["task"] == document["task"]
    assert (document["schema_version"], document["machine"]["gpu"]) == (1, None)
    assert document["machine"].keys() >= {"cpu", "cores", "torch", "date", "load"}
    task, (_, plain, vmap) = document["task"], document["contenders"]
    assert (task["epochs"], task["steps"], task["repeats"]) == (30, 180, 3)
    assert (plain["engine_ratio"], plain["lanes"]) == (pytest.approx(spread(8, 8.8, 9.6)), 16)
    assert (vmap["available"], vmap["lane_steps_per_second"]) == (False, None)
    assert vmap["reason"].startswith("bench vmap")
    assert document["floor"]["fraction_reached"] == pytest.approx(spread(0.5, 0.55, 0.6))


def test_scaling_overhead_and_optimizers_are_shown_at_any_width(run: Run, monkeypatch: Patch) -> None:
    shown = run("bench --scaling --repeats 2", code=0)
    assert shown.err == "measured 1 of 2 times\nmeasured 2 of 2 times\n"
    line = "from 50 on they take 0.525 s + 10.5 ms per lane"
    assert_holds(words(shown.out), "2000 21.5 (20.5 – 22.6) 0.179 (0.171 – 0.188)", line)
    assert (made_up.RUN[0][1][-1], made_up.RUN[0][2].task.epochs) == (2000, 10)
    found = strict(run("bench --scaling --format json --lanes 50").out)["scaling"]
    assert [point["lanes"] for point in found["points"]] == [1, 2, 5, 10, 20, 50]
    assert (found["at_once"], found["line"]) == (32, None)  # one point fills the machine
    monkeypatch.setattr(made_up, "runs", count())
    start = "from the start of the process to the end of an epoch 2.25 s (2.00 – 2.50)"
    shown = run("bench --overhead --repeats 2")
    assert_holds(words(shown.out), start, "both, per lane, of 10,000 0.350 ms (0.300 – 0.400)")
    found = strict(run("bench --overhead --format json --lanes 100").out)["overhead"]
    assert (found["lanes"], found["sampler_seconds_per_lane"]) == (100, spread(0.01))
    monkeypatch.setattr(made_up, "runs", iter([0] * 100))
    asked = "bench --optimizers sgdw,adamw:cautious --lanes 4 --repeats 2"
    assert "adamw:cautious 4,000 250 2.00" in words(run(asked).out)
    timed = strict(run(f"{asked} --format json").out)["optimizers"]
    assert [(one["lanes"], one["cost"]) for one in timed] == [(4, spread(1.0)), (4, spread(2.0))]
    monkeypatch.setenv("COLUMNS", "30")
    assert max(map(len, run("bench --overhead").out.splitlines())) <= 30


def test_sections_are_text_or_json_and_a_failed_check_exits_with_1(run: Run, monkeypatch: Patch) -> None:
    shown = run("verify --device cpu", code=0)
    assert (shown.err, shown.out.endswith("differ as they must\n")) == ("", True)
    written = run("verify --device cpu --json")  # the former spelling
    assert (written.code, written.err) == (0, "")
    document = strict(written.out)
    assert (document["schema_version"], document["device"], document["passed"]) == (1, "cpu", True)
    assert len(document["sections"]) == 10
    assert all(section["title"][:30] in shown.out for section in document["sections"])
    checks = [check for section in document["sections"] for check in section["checks"]]
    assert all(check["passed"] for check in checks)
    assert checks[-1]["about"].keys() == {"theirs", "ours", "schedules"}

    name = "lrwd_sweep.lab.verify.problem.make_update"  # of which Proposition 3 and others make use
    monkeypatch.setattr(name, lambda *of, alpha, lam: make_update(*of, alpha=alpha, lam=1.01 * lam))
    monkeypatch.setenv("COLUMNS", "40")
    shown = run("verify --device cpu", code=1)
    assert re.fullmatch(r"lrwd-sweep: Proposition 3: .*more\).*\n", shown.err)
    assert re.search(r"FAILED, .* must, \d+ FAILED\n$", shown.out, re.DOTALL)
    assert "…" not in shown.out, "no cell is cut off"
