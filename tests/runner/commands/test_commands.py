"""A user's command runs once per lane: its points are read, and no failure costs more than it has to."""

import json
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.errors import HostError
from lrwd_sweep.runner.executors import commands
from lrwd_sweep.runner.executors.commands import FirstRunFailed, NothingRead
from lrwd_sweep.runner.runner import Runner
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.job import DataFiles
from lrwd_sweep.store import Store
from tests.faults import assert_ended
from tests.refusal import assert_raises
from tests.runner.commands.conftest import FAST, FOUR, HEAD, ONE, RUN, attempts, log_of, spec, sweep

GRID = ["grid", "--run", RUN, "-o", "adam", "--lr", "0.1", "--wd", "0.1", "--seeds", "1"]


def test_a_run_gets_its_values_and_keeps_its_logs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")  # so that two run at a time
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = """names = ("LR", "WEIGHT_DECAY", "SEED", "OUT")
seen = {name: os.environ[name] for name in ("PYTHONUNBUFFERED", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
seen |= {"words": sys.argv[1:], "given": [os.environ["LRWD_" + name] for name in names]}
print(json.dumps(seen | {"session": os.getsid(0) == os.getpid()}))
print("val_loss: 0.5", flush=True)
print("a warning", file=sys.stderr)
"""
    sweep(store, spec(script, lr=[1e-5], weight_decay=[0.0, 0.1], seeds=2, read="auto"))
    devices, values = set(), product(("1e-05",), ("0.0", "0.1"), ("0", "1"))
    for path, lane in zip(attempts(), values, strict=True):
        out, log = str((path / "out").resolve()), (path / "stdout.log").read_text()
        seen = json.loads(log.split("\n")[0])
        assert seen.pop("words") == seen.pop("given") == [*lane, out]
        assert not set("=, ") & set(out), "nanoGPT splits arguments at ="
        devices.add(seen.pop("CUDA_VISIBLE_DEVICES"))
        assert int(seen.pop("OMP_NUM_THREADS")) >= 1
        assert seen == {"PYTHONUNBUFFERED": "1", "session": True}
        assert (path / "stderr.log").read_text() == "a warning\n"
        assert (log_of(path)["exit"], log_of(path)["status"]) == (0, "complete")
    assert devices == {"4", "7"}


def test_a_script_continues_from_what_it_kept_in_out(store: Store) -> None:
    script = """state, log = out + "/state", out + "/log.csv"
began = step = int(open(state).read()) if os.path.exists(state) else 0
if not began:
    print("step,val_loss", file=open(log, "w"))
while step < 6:
    step += 1
    print(f"{step},{1 / step}", file=open(log, "a"))
    print(step, file=open(state, "w"))
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
print("began at", began)
"""
    given: dict[str, Any] = ONE | {"read": "csv:{out}/log.csv:val_loss"}
    with pytest.raises(FirstRunFailed, match="SIGKILL"):
        sweep(store, spec(script, **given, keep_out=True))
    for began in (3, 6):  # then it reads to the end, and writes nothing
        (found,) = sweep(store, spec(**given, keep_out=True))
        assert found.curves["val_loss"] == tuple(1 / step for step in range(1, 7)), "the file has all points"
        assert (attempts()[-1] / "stdout.log").read_text() == f"began at {began}\n"
        store.delete_study("s")
    assert len({(path / "out").resolve() for path in attempts()}) == 1
    for other in (given, given | {"run": f"{RUN} x", "keep_out": True}):  # another command, another folder
        with pytest.raises(FirstRunFailed):
            sweep(store, spec(**other))


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
    script = """print("val_loss: 1")
mark = "tried-%s-%s" % (lr, wd)
if lr == 0.01 and not (wd == 0.1 and os.path.exists(mark)) and not os.path.exists("mended"):
    open(mark, "w")
    raise ValueError("out of luck")
"""
    asked = spec(script, **FOUR, read="auto")
    with pytest.raises(HostError, match="3 failures within a minute") as stopped:
        sweep(store, asked)
    assert "exit status 1: ValueError: out of luck (3 times)" in str(stopped.value)
    statuses = {(trial.cell.lr, trial.cell.weight_decay): trial.status for trial in store.trials("s")}
    assert (statuses[0.01, 0.1], statuses[0.01, 0.2]) == (Status.COMPLETE, Status.FAILED)
    assert len(attempts()) == 5  # two of each of the two that failed
    Path("mended").touch()
    assert {trial.status for trial in sweep(store, asked)} == {Status.COMPLETE}
    assert len(attempts()) == 7


def test_a_run_without_a_value_has_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SOON", 0.0)
    given: dict[str, Any] = {"lr": [0.01, 0.02], "weight_decay": [0.1, 0.2, 0.3], "seeds": 1, "read": "auto"}
    asked = spec('if lr > 0.01:\n    print("val_loss: 1")', **given)  # the first run, in the middle, has one
    with pytest.raises(HostError, match=r"stopped after 5 failures in a row(.|\n)*no val_loss"):
        sweep(store, asked)
    failed = [trial.detail for trial in store.trials("s") if trial.status is Status.FAILED]
    assert failed == ["no val_loss"] * 2


def test_a_wrong_reader_or_a_broken_script_costs_one_run(store: Store) -> None:
    lines = "".join(f'print("epoch {k} loss=1.5")\n' for k in range(30))
    unread = "without val_loss in $LRWD_RESULT", "give metric='NAME' or read='auto'"
    cases: list[tuple[str, dict[str, Any], type[Exception], tuple[str, ...]]] = [
        (lines, {}, NothingRead, (*unread, "keys seen: loss", "epoch 29")),
        (lines, {"read": "stdout:Loss (?P<value>.*)"}, NothingRead, ("keys seen: loss", "epoch 10 loss")),
        (lines, {"read": "auto"}, NothingRead, ("keys seen: loss",)),
        (lines, {"read": "csv:nothing.csv:val_loss"}, NothingRead, ("no file in {out} or here",)),
        ("pass", {}, NothingRead, ("no key was seen", "it wrote nothing")),
        ("import nothing_of_this_name", {}, FirstRunFailed, ("exit status 1: ModuleNotFoundError",)),
    ]  # fmt: skip
    for k, (script, given, error, texts) in enumerate(cases):
        with pytest.raises(error) as refused:
            sweep(store, spec(script, **(FOUR | given)), f"s{k}")
        for text in texts:
            assert text in str(refused.value), (given, str(refused.value))
        assert "epoch 9 " not in str(refused.value), "only the last 20 lines are shown"
        assert len(attempts(f"s{k}")) == 1
        assert store.find_study(f"s{k}") is None, "the name is free for a corrected command"


def test_a_run_out_of_time_ends_with_all_its_processes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "ATTEMPTS", 1)
    script = """import subprocess
print("val_loss: 1", flush=True)
if lr < 0.02:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deaf = "trap '' TERM; sleep 300 & echo $! $$ > pids; wait"
    subprocess.Popen(["sh", "-c", deaf], start_new_session=True)
    time.sleep(300)
"""
    asked = spec(script, lr=[0.01, 0.02], weight_decay=[0.1], seeds=1, read="auto", timeout="1.5s", jobs=1)
    (failed,) = (trial for trial in sweep(store, asked) if trial.cell.lr == 0.01)
    assert (failed.status, failed.detail) == (Status.FAILED, "it did not end within 1.5 s")
    assert_ended(Path("pids").read_text().split())


def test_no_process_outlives_a_killed_or_interrupted_driver() -> None:
    script = """import subprocess
inner = subprocess.Popen(["sleep", "300"])
other = subprocess.Popen(["sleep", "300"], start_new_session=True)
with open("pids.part", "w") as file:
    print(os.getpid(), inner.pid, other.pid, file=file)
os.rename("pids.part", "pids")
time.sleep(300)
"""
    Path("script.py").write_text(HEAD + script)
    command = [sys.executable, "-c", "from lrwd_sweep.cli import main; main()", *GRID]
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
            while driver.poll() is None and not Path("pids").exists():
                time.sleep(0.02)
            processes = Path("pids").read_text().split()
            assert len(processes) == 3
            driver.send_signal(number)
            _, err = driver.communicate(timeout=60)
        assert driver.returncode == status, err
        assert ("the same command continues" in err) is (number != signal.SIGKILL), err
        assert_ended(processes)
        Path("pids").unlink()
    (study,) = Path("lrwd-runs").iterdir()
    assert [log_of(path).get("status") for path in attempts(study.name)] == [None, "stopped", "stopped"]


def test_a_script_that_changes_ends_its_sweep(store: Store) -> None:
    asked = spec('print("val_loss: 1")\nopen("script.py", "a").write("# more")', **FOUR, read="auto")
    assert_raises("has changed since this sweep began", sweep, store, asked, "changing")
    assert len(store.trials("changing")) == 1


def test_a_shell_runs_what_a_shell_understands(store: Store) -> None:
    run = 'for k in 1 2; do echo "step: $k val_loss: $LRWD_SEED.5"; done | cat; : {lr} {weight_decay}'
    (found,) = sweep(store, spec(run=run, **(ONE | {"first_seed": 4}), read="auto", shell=True))
    assert (found.metrics["val_loss"], found.curves["step"]) == (4.5, (1.0, 2.0))


def test_what_cannot_run_is_refused(store: Store) -> None:
    same = spec(run=f"{FAST} {{lr}} {{weight_decay}}", **ONE, read="json:r.json:val_loss", jobs=2)
    assert_raises("2 runs at a time would write the same file", sweep, store, same)
    none = spec(run="nothing-of-this-name {lr} {weight_decay}", **ONE)
    assert_raises("there is no program 'nothing-of-this-name'", sweep, store, none)
    for device, lanes, folder in (("cpu", None, None), ("auto", 3, None), ("auto", None, "x")):
        runner = Runner(store, device, lanes, DataFiles(folder), quiet=True)
        assert_raises("has no effect with run", runner.grid, "s", spec("pass", **ONE))


def test_no_run_loads_torch() -> None:
    Path("script.py").write_text(HEAD + 'print("val_loss: 1")')
    code = "import sys; from lrwd_sweep.cli import app; assert app.run() == 0; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code, *GRID, "--read", "auto"], text=True)
    assert not {"torch", "torchvision", "sklearn", "numba"} & {*loaded.splitlines()[-1].split()}
