"""A user's command runs once per lane: its points are read, and no failure costs more than it has to."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.errors import HostError, SpecMismatch, UsageError
from lrwd_sweep.runner.executors import commands, run_process
from lrwd_sweep.runner.executors.commands import CommandExecution, FirstRunFailed, NothingRead
from lrwd_sweep.runner.readers import _pairs
from lrwd_sweep.runner.runner import Runner
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.job import Pack
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store import Store, open_store

FAST = f"{sys.executable} -S -E script.py"  # an interpreter that starts in 15 ms
RUN = f"{FAST} {{lr}} {{weight_decay}} {{seed}} {{out}}"
HEAD = (
    "import json, os, signal, sys, time\nlr, wd, seed, out = sys.argv[1:5]\nlr, wd = float(lr), float(wd)\n"
)
ONE: dict[str, Any] = {"lr": [0.01], "weight_decay": [0.1], "seeds": 1}
FOUR: dict[str, Any] = {"lr": [0.01, 0.02], "weight_decay": [0.1, 0.2], "seeds": 1}


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(run_process, "GRACE", 0.5)
    monkeypatch.setattr(commands, "READ_EVERY", 0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "sweep.db"), write=True) as opened:
        yield opened


def spec(script: str = "", **given: Any) -> StudySpec:
    if script:
        Path("script.py").write_text(HEAD + script, encoding="utf-8")
    request = Request.of(**{"run": RUN, "metric": "val_loss", **given})
    return request.spec(request.variant("adamw:lr-scaled"))


def sweep(store: Store, asked: StudySpec, name: str = "s") -> list[Trial]:
    Runner(store, "auto", None, DataFiles(), quiet=True).grid(name, asked)
    return store.trials(name, curves=True)


def attempts(name: str = "s") -> list[Path]:
    return sorted(Path("lrwd-runs", name).glob("*/attempt-*"))


def log_of(attempt: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((attempt / "command.json").read_text())
    return found


def event(step: int, tag: str, value: float, *, tensor: bool = False) -> bytes:
    """Encode a TensorBoard event, as torch (simple_value) and as TensorFlow 2 (a tensor) write it."""
    number = struct.pack("<f", value)
    inside = b"\x08\x01\x22\x04" + number  # dtype float, tensor_content
    scalar = b"\x42" + bytes([len(inside)]) + inside if tensor else b"\x15" + number
    summary = b"\x0a" + bytes([len(tag)]) + tag.encode() + scalar
    summary = b"\x0a" + bytes([len(summary)]) + summary
    message = b"\x09" + struct.pack("<d", 0.0) + b"\x10" + bytes([step]) + b"\x2a" + bytes([len(summary)])
    message += summary
    return struct.pack("<QI", len(message), 0) + message + struct.pack("<I", 0)


NANOGPT = """
print("step 0: train loss 4.2, val loss 4.1")
print("iter 0: loss 4.2, time 30.1ms, mfu -100.00%")
print("step 250: train loss 2.5, val loss 2.75\\nsaving checkpoint to out", flush=True)
"""
NANOCHAT = """
print("Step 00000 | Validation bpb: 3.2")
print("step 00010/02000 (0.5%) | loss: 3.1 | lrm: 1.00 | dt: 12ms")
print("Step 00250 | Validation bpb: 0.812345")
"""
TORCHTITAN = """
print("\\x1b[31m[titan] step: 10  loss:  9.9  grad_norm: 1.2\\x1b[39m")
print("\\x1b[32m[titan] validate step: 5  loss:  9.0  memory: 1.5GiB\\x1b[39m")
print("\\x1b[32m[titan] validate step: 10  loss:  8.0123  memory: 1.5GiB\\x1b[39m")
"""
TRAINER = """
def save(folder, log):
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/trainer_state.json", "w") as file:
        json.dump({"best_metric": None, "global_step": 9, "log_history": log}, file)
log = [{"epoch": 0.5, "step": 50, "loss": 3.0}, {"epoch": 0.5, "step": 50, "eval_loss": 2.5}]
save(out + "/checkpoint-50", log)
save(out, log + [{"epoch": 1.0, "step": 100, "eval_loss": 2.25}, {"step": 100, "train_runtime": 3.0}])
"""
LIGHTNING = """
os.makedirs(out + "/lightning_logs/version_0")
with open(out + "/lightning_logs/version_0/metrics.csv", "w") as file:
    file.write("epoch,step,train_loss,val_loss\\n0,49,1.5,\\n0,49,,1.25\\n1,99,1.0,\\n1,99,,0.75\\n")
"""
TIMM = """
os.makedirs(out + "/run")
with open(out + "/run/summary.csv", "w") as file:
    file.write("epoch,train_loss,eval_loss,eval_top1\\n0,2.5,2.0,40.0\\n1,2.0,1.5,60.0\\n2,1.9,1.75,55.0\\n")
"""
OPEN_CLIP = """
os.makedirs(out + "/run/checkpoints")
with open(out + "/run/checkpoints/results.jsonl", "w") as file:
    for epoch in (1, 2):
        file.write(json.dumps({"epoch": epoch, "clip_val_loss": 4.0 / epoch, "name": "run"}) + "\\n")
"""
RESULT = """
with open(os.environ["LRWD_RESULT"], "w") as file:
    for step in (1, 2, 3):
        file.write(json.dumps({"step": step, "val_loss": 1 / step, "train_loss": 0.5 / step}) + "\\n")
print("val_loss: 99")
"""
DOCUMENT = """
with open(os.environ["LRWD_RESULT"], "w") as file:
    json.dump({"val_loss": 0.25, "acc": 0.5, "note": "no number"}, file)
"""
EVENTS = """
import shutil
shutil.copy("events.out", out + "/events.out.tfevents.1")
"""
NESTED = """
runs = [{"step": 1, "eval": {"loss": 3.0}}, {"step": 2, "eval": {"loss": 2.0}}]
json.dump({"runs": runs}, open(out + "/r.json", "w"))
"""
PAIRS = 'print("epoch: 3, val_loss: 1e-1"); print("epoch=4 val_loss=.5")'
BEST = {"take": "best"}
CLIP = "jsonl:{out}/run/checkpoints/results.jsonl:clip_val_loss"
TOP1 = {"metric": "eval_top1", "maximize": True}

# name, script, what is said, value, steps, unit
READ: list[tuple[str, str, dict[str, Any], float, tuple[float, ...], str]] = [
    ("nanoGPT", NANOGPT, {"read": "auto"}, 2.75, (0, 250), "step"),
    (
        "nanoGPT by a regular expression",
        NANOGPT,
        {"read": r"stdout:step (?P<step>\d+): train loss (?P<train_loss>\S+), val loss (?P<value>\S+)"},
        2.75,
        (0, 250),
        "step",
    ),
    ("nanochat", NANOCHAT, {"read": "auto", "metric": "val_bpb"}, 0.812345, (0, 250), "step"),
    ("torchtitan", TORCHTITAN, {"read": "auto"}, 8.0123, (5, 10), "step"),
    ("Trainer", TRAINER, {"read": "auto", "metric": "eval_loss"}, 2.25, (50, 100), "step"),
    ("Trainer by another name", TRAINER, {"read": "auto"}, 2.25, (50, 100), "step"),
    (
        "Trainer's file",
        TRAINER,
        {"read": "json:trainer_state.json:log_history[].eval_loss", "metric": None},
        2.25,
        (50, 100),
        "step",
    ),
    ("Lightning", LIGHTNING, {"read": "auto"}, 0.75, (49, 99), "step"),
    ("Lightning's file", LIGHTNING, {"read": "csv:{out}/**/metrics.csv:val_loss"}, 0.75, (49, 99), "step"),
    ("timm", TIMM, {"read": "auto", "metric": "eval_loss"}, 1.75, (0, 1, 2), "epoch"),
    ("timm's best", TIMM, {"read": "auto", "take": "best", **TOP1}, 60.0, (0, 1, 2), "epoch"),
    ("timm's best loss", TIMM, {"read": "csv:run/*.csv:eval_loss", **BEST}, 1.5, (0, 1, 2), "epoch"),
    ("open_clip", OPEN_CLIP, {"read": CLIP}, 2.0, (1, 2), "epoch"),
    ("open_clip, auto", OPEN_CLIP, {"read": "auto", "metric": "clip_val_loss"}, 2.0, (1, 2), "epoch"),
    ("TensorBoard", EVENTS, {"read": "tb:events.*:val/loss"}, 1.5, (1, 2), "step"),
    ("TensorFlow's", EVENTS, {"read": "tb:events.*:tf"}, 0.5, (3,), "step"),
    ("nested JSON", NESTED, {"read": "json:r.json:eval.loss"}, 2.0, (1, 2), "step"),
    ("lines of the result", RESULT, {}, 1 / 3, (1, 2, 3), "step"),
    ("the result before --read", RESULT, {"read": "auto"}, 1 / 3, (1, 2, 3), "step"),
    ("a document as result", DOCUMENT, {}, 0.25, (), ""),
    ("a prefix", 'print("10:00:01 INFO Validation-loss: 3.5.")', {"read": "auto"}, 3.5, (), ""),
    ("key: value", PAIRS, {"read": "auto"}, 0.5, (3, 4), "epoch"),
]  # fmt: skip


def test_every_script_of_the_table_is_read(store: Store) -> None:
    records = [event(1, "val/loss", 2.5), event(1, "lr", 9.0), event(2, "val/loss", 1.5)]
    half = event(3, "val/loss", 9.0)[:9]  # a record that is being written
    Path("events.out").write_bytes(b"".join([*records, event(3, "tf", 0.5, tensor=True), half]))
    for name, script, given, value, steps, unit in READ:
        asked = spec(script, **(ONE | given))
        (found,) = sweep(store, asked, name)
        assert found.status is Status.COMPLETE, (name, found)
        assert found.metrics[asked.metric] == value, (name, found.metrics)
        assert found.curves.get(unit, ()) == steps, (name, found.curves)
        assert len(found.curves[asked.metric]) == max(len(steps), 1), (name, found.curves)


def test_a_run_gets_its_values_and_keeps_its_logs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")  # so that two run at a time
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = """
names = ("LRWD_LR", "LRWD_WEIGHT_DECAY", "LRWD_SEED", "LRWD_OUT", "PYTHONUNBUFFERED", "OMP_NUM_THREADS")
seen = {name: os.environ[name] for name in (*names, "CUDA_VISIBLE_DEVICES")}
print("seen", json.dumps(seen | {"words": sys.argv[1:], "session": os.getsid(0) == os.getpid()}))
print("val_loss: 0.5", flush=True)
print("a warning", file=sys.stderr)
"""
    sweep(store, spec(script, lr=[1e-5], weight_decay=[0.0, 0.1], seeds=2, read="auto"))
    found = [json.loads((path / "stdout.log").read_text().split("\n")[0][5:]) for path in attempts()]
    assert [one["words"][:3] for one in found] == [
        ["1e-05", wd, seed] for wd in ("0.0", "0.1") for seed in ("0", "1")
    ]
    for path, one in zip(attempts(), found, strict=True):
        assert one["words"][3] == one["LRWD_OUT"] == str((path / "out").resolve())
        assert not set("=, ") & set(one["LRWD_OUT"]), "nanoGPT splits arguments at ="
        assert [one["LRWD_LR"], one["LRWD_WEIGHT_DECAY"], one["LRWD_SEED"]] == one["words"][:3]
        assert one["PYTHONUNBUFFERED"] == "1"
        assert int(one["OMP_NUM_THREADS"]) >= 1
        assert one["session"]
        assert (path / "stderr.log").read_text() == "a warning\n"
        assert (log_of(path)["exit"], log_of(path)["status"]) == (0, "complete")
    assert {one["CUDA_VISIBLE_DEVICES"] for one in found} == {"4", "7"}


def test_two_runs_train_at_a_time(store: Store) -> None:
    script = """
if os.path.exists("both"):  # after the first run
    open("here-" + seed, "w")
    while len([name for name in os.listdir() if name.startswith("here-")]) < 2:
        time.sleep(0.01)
open("both", "w")
print("val_loss: 1")
"""
    found = sweep(store, spec(script, **(ONE | {"seeds": 3}), read="auto", jobs=2, timeout=20))
    assert [trial.status for trial in found] == [Status.COMPLETE] * 3


def test_divergence_ends_a_run_and_is_never_retried(store: Store) -> None:
    cases = [
        ('print("step 3: val_loss: nan", flush=True)', {}, "val_loss nan at step 3"),
        ('print("step 3: train_loss: inf", flush=True)', {}, "train_loss inf at step 3"),
        ('print("val_loss: 50", flush=True)', {"diverged_above": 9}, "a loss of 50 is above 9"),
        ('open(os.environ["LRWD_RESULT"], "w").write(\'{"val_loss": NaN}\')', {}, "val_loss nan"),
    ]  # fmt: skip
    for k, (line, given, detail) in enumerate(cases):
        script = f'{line}\nif lr > 0.01:\n    time.sleep(60)\nsys.exit("the loss is not finite")'
        asked = spec(script, **(FOUR | given), read="auto")
        began = time.monotonic()
        for _ in range(2):
            found = sweep(store, asked, f"s{k}")
            assert {(trial.status, trial.detail) for trial in found} == {(Status.DIVERGED, detail)}, line
        assert time.monotonic() - began < 50, line
        assert len(attempts(f"s{k}")) == 4, line
        assert {log_of(path)["status"] for path in attempts(f"s{k}")} == {"diverged"}


def test_a_failed_run_is_tried_once_more_then_left_for_the_next_sweep(store: Store) -> None:
    script = """
print("val_loss: 1")
mark = "tried-%s-%s" % (lr, wd)
if lr == 0.01 and not (wd == 0.1 and os.path.exists(mark)) and not os.path.exists("mended"):
    open(mark, "w")
    raise ValueError("out of luck")
"""
    asked = spec(script, **FOUR, read="auto")
    with pytest.raises(HostError, match="3 failures within a minute") as stopped:
        sweep(store, asked)
    assert "exit status 1: ValueError: out of luck (3 times)" in str(stopped.value)
    found = {(trial.cell.lr, trial.cell.weight_decay): trial for trial in store.trials("s")}
    assert found[0.01, 0.1].status is Status.COMPLETE
    assert found[0.01, 0.2].status is Status.FAILED
    assert len(attempts()) == 5  # two of each of the two that failed
    Path("mended").touch()
    assert {trial.status for trial in sweep(store, asked)} == {Status.COMPLETE}
    assert len(attempts()) == 7


def test_a_run_without_a_value_has_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SOON", 0.0)
    given: dict[str, Any] = {"lr": [0.01, 0.02], "weight_decay": [0.1, 0.2, 0.3], "seeds": 1, "read": "auto"}
    asked = spec('if lr < 0.02:\n    print("val_loss: 1")', **given)
    store.begin_study("s", asked)
    store.add_trials("s", [Trial(next(asked.lattice.cells()), 0, Status.COMPLETE, {"val_loss": 1.0})])
    with pytest.raises(HostError, match=r"stopped after 5 failures in a row(.|\n)*no val_loss"):
        sweep(store, asked)
    assert [trial.detail for trial in store.trials("s") if trial.status is Status.FAILED] == [
        "no val_loss"
    ] * 2


def test_a_wrong_reader_or_a_broken_script_costs_one_run(store: Store) -> None:
    lines = "".join(f'print("epoch {k} loss=1.5")\n' for k in range(30))
    cases: list[tuple[str, dict[str, Any], type[Exception], tuple[str, ...]]] = [
        (lines, {}, NothingRead, ("without val_loss in $LRWD_RESULT", "keys seen: loss", "epoch 29")),
        (lines, {}, NothingRead, ("give metric='NAME' or read='auto'",)),
        (lines, {"read": "stdout:Loss (?P<value>.*)"}, NothingRead, ("keys seen: loss", "epoch 10 loss")),
        (lines, {"read": "auto"}, NothingRead, ("keys seen: loss",)),
        (lines, {"read": "csv:nothing.csv:val_loss"}, NothingRead, ("no file in {out} or here",)),
        ("pass", {}, NothingRead, ("no key was seen", "it wrote nothing")),
        ("import nothing_of_this_name", {}, FirstRunFailed, ("exit status 1: ModuleNotFoundError",)),
    ]  # fmt: skip
    for k, (script, given, error, texts) in enumerate(cases):
        asked = spec(script, **(FOUR | given))
        with pytest.raises(error) as refused:
            sweep(store, asked, f"s{k}")
        for text in texts:
            assert text in str(refused.value), (given, str(refused.value))
        assert "epoch 9 " not in str(refused.value), "only the last 20 lines are shown"
        assert len(attempts(f"s{k}")) == 1
        assert store.find_study(f"s{k}") is None, "the name is free for a corrected command"
    with pytest.raises(UsageError, match="there is no program 'nothing-of-this-name'"):
        sweep(store, spec(run="nothing-of-this-name {lr} {weight_decay}", **ONE))


def test_the_first_run_is_in_the_middle_and_says_what_it_gave(store: Store) -> None:
    told: list[str] = []
    asked = spec(
        'print("step 5 val_loss: %g" % lr)', lr=[1, 2, 3], weight_decay=[1, 2, 3], seeds=2, read="auto"
    )
    execution = CommandExecution(asked, Path("runs"), runs=18, tell=told.append)
    packs = execution.plan({seed: list(asked.lattice.cells()) for seed in (0, 1)})
    first = packs[0]
    assert (first.cells[0].lr, first.cells[0].weight_decay, first.seed) == (2, 2, 0)
    assert len(set(packs)) == 18
    assert all(isinstance(pack, Pack) and len(pack.cells) == 1 for pack in packs)
    list(execution.train(asked.optimizer, packs[:2]))
    (text,) = told
    assert text.startswith("val_loss 2 at step 5 from stdout, 1 point; ")
    assert "; 18 runs, 1 at a time: about " in text


def test_a_run_out_of_time_is_ended_with_all_that_it_started(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "ATTEMPTS", 1)
    script = """
import subprocess
print("val_loss: 1", flush=True)
if lr > 0.01:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deaf = "trap '' TERM; sleep 300 & echo $! $$ > pids; wait"
    subprocess.Popen(["sh", "-c", deaf], start_new_session=True)
    time.sleep(300)
"""
    asked = spec(script, lr=[0.01, 0.02], weight_decay=[0.1], seeds=1, read="auto", timeout="1.5s", jobs=1)
    store.begin_study("s", asked)
    store.add_trials("s", [Trial(next(asked.lattice.cells()), 0, Status.COMPLETE, {"val_loss": 1.0})])
    failed = sweep(store, asked)[-1]
    assert (failed.status, failed.detail) == (Status.FAILED, "it did not end within 1.5 s")
    assert gone(Path("pids").read_text().split())


def gone(processes: list[str], seconds: float = 20) -> bool:
    """Wait until none of the processes runs any more."""
    deadline = time.monotonic() + seconds
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _runs(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def waited(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_process_outlives_a_killed_or_interrupted_driver() -> None:
    Path("script.py").write_text(
        HEAD
        + """
import subprocess
inner = subprocess.Popen(["sleep", "300"])
other = subprocess.Popen(["sleep", "300"], start_new_session=True)
with open("pids.part", "w") as file:
    print(os.getpid(), inner.pid, other.pid, file=file)
os.rename("pids.part", "pids")
time.sleep(300)
"""
    )
    words = ["grid", "--run", RUN, "-o", "adam", "--lr", "0.1", "--wd", "0.1", "--seeds", "1"]
    code = "from lrwd_sweep.cli import main; main()"
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with subprocess.Popen(
            [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True
        ) as driver:
            waited(Path("pids").exists)
            processes = Path("pids").read_text().split()
            assert len(processes) == 3
            driver.send_signal(number)
            _, err = driver.communicate(timeout=60)
        assert driver.returncode == status, err
        assert ("the same command continues" in err) is (number != signal.SIGKILL), err
        assert gone(processes), number
        Path("pids").unlink()
    (study,) = Path("lrwd-runs").iterdir()
    assert [log_of(path).get("status") for path in attempts(study.name)] == [None, "stopped", "stopped"]


def test_a_study_knows_its_script_but_not_its_jobs(store: Store) -> None:
    sweep(store, spec('print("val_loss: 1")', **ONE, read="auto"))
    sweep(store, spec(**(ONE | {"seeds": 2}), read="auto", jobs=3, timeout="1h"))
    assert len(attempts()) == 2, "only the new seed ran"
    changed = spec('print("val_loss: 2")', **ONE, read="auto")
    with pytest.raises(SpecMismatch, match="code of script: "):
        sweep(store, changed)


def test_a_script_that_changes_during_a_sweep_stops_it(store: Store) -> None:
    asked = spec('print("val_loss: 1")\nopen("script.py", "a").write("# more")', **FOUR, read="auto")
    with pytest.raises(UsageError, match="has changed since this sweep began"):
        sweep(store, asked)
    assert len(store.trials("s")) == 1


def test_several_runs_must_not_write_one_file(store: Store) -> None:
    run = f"{FAST} {{lr}} {{weight_decay}}"
    with pytest.raises(UsageError, match="2 runs at a time would write the same file"):
        sweep(store, spec(run=run, **ONE, read="json:result.json:val_loss", jobs=2))


def test_a_shell_runs_what_a_shell_understands(store: Store) -> None:
    run = 'for k in 1 2; do echo "step: $k val_loss: $LRWD_SEED.5"; done | cat; : {lr} {weight_decay}'
    (found,) = sweep(store, spec(run=run, **(ONE | {"first_seed": 4}), read="auto", shell=True))
    assert (found.metrics["val_loss"], found.curves["step"]) == (4.5, (1.0, 2.0))


def test_options_of_the_engine_have_no_effect_on_a_command(store: Store) -> None:
    for device, lanes, files in (
        ("cpu", None, DataFiles()),
        ("auto", 3, DataFiles()),
        ("auto", None, DataFiles("x")),
    ):
        with pytest.raises(UsageError, match="has no effect with run"):
            Runner(store, device, lanes, files, quiet=True).grid("s", spec("pass", **ONE))


def test_tpe_searches_with_a_command(store: Store) -> None:
    request = Request.of(
        run=RUN, metric="val_loss", lr="1e-3:1e-1:3", weight_decay="0.1:1:3", seeds=1, read="auto"
    )
    Path("script.py").write_text(HEAD + 'print("val_loss:", lr + wd)')
    asked = request.spec(request.variant("sgd"), Kind.TPE)
    Runner(store, "auto", None, DataFiles(), quiet=True).tpe("t", asked, 5)
    found = store.trials("t")
    assert len({trial.cell for trial in found}) == 5
    assert all(trial.metrics["val_loss"] == trial.cell.lr + trial.cell.weight_decay for trial in found)


def test_no_run_loads_torch() -> None:
    Path("script.py").write_text(HEAD + 'print("val_loss: 1")')
    words = [
        "grid",
        "--run",
        RUN,
        "-o",
        "adam",
        "--lr",
        "0.1",
        "--wd",
        "0.1",
        "--seeds",
        "1",
        "--read",
        "auto",
    ]
    code = f"""
import sys
from lrwd_sweep.cli import app
sys.argv = ["lrwd-sweep", *{words!r}]
assert app.run() == 0
loaded = [name for name in ("torch", "torchvision", "sklearn", "numba") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"COLUMNS": "100"})


def test_only_metrics_of_a_log_are_kept(store: Store) -> None:
    log = "weight_decay: 0.1, lr: 3, val_loss: 1.5, acc: 0.5, epoch: 2, batch size: 64, train_loss: 1"
    (found,) = sweep(store, spec(f'print("seed = 4"); print("{log}")', **ONE, read="auto"))
    assert found.metrics == {"val_loss": 1.5, "acc": 0.5, "train_loss": 1.0}
    assert set(found.curves) == {"val_loss", "acc", "train_loss", "epoch"}
    (found,) = sweep(
        store, spec(f'print("loss is 5"); print("{log}")', **ONE, read="stdout:s:? (is )?(?P<value>.)"), "t"
    )
    assert found.metrics == {"val_loss": 1.0}


def test_a_file_of_another_run_is_not_read(store: Store) -> None:
    Path("result.json").write_text('{"val_loss": 9.0}')
    script = 'if lr > 0.01:\n    json.dump({"val_loss": lr}, open("result.json", "w"))'
    given = {"read": "json:result.json:val_loss"}
    with pytest.raises(NothingRead, match="there was no file"):
        sweep(store, spec(script, **ONE, **given))
    (found,) = sweep(store, spec(script, lr=[0.02], weight_decay=[0.1], seeds=1, **given))
    assert found.metrics == {"val_loss": 0.02}


def test_lines_of_a_log_are_read_as_pairs() -> None:
    cases: dict[str, dict[str, float]] = {
        "2025-11-29T12:00:01 INFO val_loss: 3.21.": {"INFO val_loss": 3.21},
        "[epoch 3] val/loss=1e-3 acc = 45.5%": {"val/loss": 1e-3, "acc": 45.5, "epoch": 3.0},
        "iter 7: loss nan, time 30.1ms": {"iter": 7.0, "loss": float("nan")},
        "it took 12:30:01, speed: 3.5ms, v1.2: 3": {"v1.2": 3.0},
        "Loss : -inf": {"Loss": -float("inf")},
    }
    for line, pairs in cases.items():
        assert str(_pairs(line)) == str(pairs), line
