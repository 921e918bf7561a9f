"""From Python a sweep is what it is on the command line: the same store, the same bits, the same errors."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest
import torch
from rich.console import Console
from threadpoolctl import ThreadpoolController, threadpool_info  # type: ignore[import-untyped]

import lrwd_sweep
from lrwd_sweep import Comparison, LrwdError, Study
from lrwd_sweep.cli import app
from lrwd_sweep.engine import Pool
from lrwd_sweep.errors import NothingToReport, SpecMismatch, StoreError, UnknownName, UsageError
from lrwd_sweep.optimizer import optimizer_names
from lrwd_sweep.result import comparison, result
from lrwd_sweep.store import Store, open_store
from lrwd_sweep.study import Best
from lrwd_sweep.sweeping import Sweep
from lrwd_sweep.trial import Trial
from tests.view.examples import HOSTILE, study
from tests.view.test_notebook import elements, parsed

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

LR, WEIGHT_DECAY = "2^-7:2^-6", [0.01, 0.1]
NAME = "digits-mlp-norm-adamw-cosine-2ep-b64"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRWD_STORAGE", raising=False)


def tiny(optimizer: str = "adamw", **others: Any) -> Study:
    """A sweep of four cells."""
    asked: dict[str, Any] = {"lr": LR, "weight_decay": WEIGHT_DECAY, "epochs": 2, "seeds": 2}
    return lrwd_sweep.sweep(optimizer, **{**asked, "progress": False, **others})


def stored(storage: str = "lrwd-sweep.db", name: str = NAME) -> list[Trial]:
    """All that the store holds of a study."""
    with open_store(storage, write=False) as store:
        return sorted(store.trials(name, curves=True), key=lambda trial: (trial.cell, trial.seed))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A tiny study, of a store that stays where it is."""
    return tiny(storage=tmp_path_factory.mktemp("swept") / "here.db")


# The package


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, lrwd_sweep; lrwd_sweep.LrwdError; dir(lrwd_sweep); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "sqlalchemy", "rich", "numpy", "pandas", "optuna", "jinja2", "typer"}


def test_reading_a_study_loads_no_torch(swept: Study) -> None:
    code = f"import sys, lrwd_sweep; lrwd_sweep.load({NAME!r}, storage={str(swept.store)!r})._repr_html_()"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_no_other() -> None:
    for name in lrwd_sweep.__all__:
        assert getattr(lrwd_sweep, name).__name__ == name
        assert name in dir(lrwd_sweep)
    with pytest.raises(AttributeError, match="'lrwd_sweep' has no attribute 'sweeps'"):
        lrwd_sweep.sweeps  # noqa: B018


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """Importing a module of that name would put it where the function is."""
    modules = {path.stem for path in Path(lrwd_sweep.__file__).parent.iterdir()}
    assert not modules & set(lrwd_sweep.__all__)


# What a study is


def test_the_frame_is_what_the_store_holds(swept: Study) -> None:
    frame, trials = swept.frame, stored(str(swept.store))
    assert len(frame) == len(trials) == 2 * 2 * 2
    for (_, row), trial in zip(frame.iterrows(), trials, strict=True):
        assert (row["lr"], row["weight_decay"]) == (trial.cell.lr, trial.cell.weight_decay)
        assert (row["seed"], row["status"], row["detail"]) == (trial.seed, trial.status, trial.detail)
        assert {name: row[name] for name in trial.metrics} == trial.metrics
    assert set(frame) == {"lr", "weight_decay", "seed", "status", "detail", *trials[0].metrics}
    assert list(frame)[5] == swept.metric == "val_loss"


def test_curves_are_what_the_store_holds(swept: Study) -> None:
    frame, trials = swept.curves(), stored(str(swept.store))
    assert len(frame) == 2 * len(trials)
    for name in trials[0].curves:
        assert frame[name].tolist() == [value for trial in trials for value in trial.curves[name]]


def test_the_surface_and_the_best_cell_are_means_of_the_frame(swept: Study) -> None:
    means = swept.frame.groupby(["lr", "weight_decay"])["val_loss"].mean()
    np.testing.assert_allclose(swept.surface.mean.ravel(), means, rtol=1e-14)
    best = swept.best
    assert_type(best, Best | None)
    assert best is not None
    assert (best.lr, best.weight_decay) == means.idxmin()
    assert best.value == pytest.approx(means.min(), rel=1e-14)
    assert best.sem is not None
    assert best.test_value is not None


def test_a_study_without_a_value_has_no_best_cell_and_says_so() -> None:
    found = study()
    lost = Study(result("lost", found.spec, "", []), Path("lost.db"))
    assert lost.best is None
    assert lost.recipe == ""
    assert "25 missing" in repr(lost)
    assert "lattice" in lost._repr_html_()


def test_it_shows_itself_everywhere(swept: Study) -> None:
    assert repr(swept).startswith(
        f"<Study '{NAME}' of adamw: 2×2 cells × 2 seeds; undetermined; best val_loss "
    )
    assert "torch.optim.AdamW(params" in swept.recipe
    assert "★" in str(swept)
    assert swept.formula in str(swept)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    console.print(swept)
    assert "\x1b[" in console.file.getvalue()  # type: ignore[attr-defined]
    squares = [
        n for tag, n in elements(parsed(swept._repr_html_())) if tag == "g" and "cell" in n.get("class", "")
    ]
    assert len(squares) == 4


def test_hostile_names_are_harmless_in_every_form() -> None:
    found = Study(study(HOSTILE), Path("x.db"))
    both = Comparison(found, Study(study("other", "adam"), Path("x.db")))
    for shown in (found, both):
        for text in (repr(shown), str(shown), shown._repr_html_()):
            assert not [c for c in text if c != "\n" and not c.isprintable()]
        assert "script" not in {tag for tag, _ in elements(parsed(shown._repr_html_()))}


# Training and the store


def test_it_is_the_study_that_the_command_line_trains(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny()
    options = "--lr 2^-7:2^-6 --wd 0.01,0.1 --epochs 2 --seeds 2 --storage other.db"
    monkeypatch.setattr(sys, "argv", ["lrwd-sweep", "grid", *options.split()])
    assert app.run() == 0
    assert stored() == stored("other.db")


def test_the_same_call_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny()
    monkeypatch.delattr(Pool, "train")
    again = tiny()
    assert again.frame.equals(first.frame)
    assert lrwd_sweep.load(NAME).frame.equals(first.frame)


def test_more_seeds_and_cells_extend_a_study_and_keep_its_bits() -> None:
    first = tiny().frame
    more = tiny(weight_decay=[0.001, 0.01, 0.1], seeds=3).frame
    assert len(more) == 2 * 3 * 3
    kept = more.merge(first[["lr", "weight_decay", "seed"]])
    assert kept.equals(first)


def test_another_task_under_the_same_name_is_refused_by_its_keyword() -> None:
    tiny(study_name="mine")
    with pytest.raises(SpecMismatch, match=r"epochs: 2, 3.*study_name$"):
        tiny(study_name="mine", epochs=3)


def test_a_store_is_named_by_text_by_path_or_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    tiny(storage=path)
    monkeypatch.setenv("LRWD_STORAGE", str(path))
    for storage in (path, str(path), f"sqlite:///{path}", None):
        assert [found.name for found in lrwd_sweep.studies(storage)] == [NAME]
    assert not Path("lrwd-sweep.db").exists()


def test_curves_are_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tiny()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert len(found.curves()) == 2 * len(found.frame)


def test_a_study_is_read_in_any_metric_and_at_any_restart() -> None:
    tiny("adamwr", t_0=1, t_mult=1, epochs=3, study_name="wr")
    by_error = lrwd_sweep.load("wr", metric="val_error")
    assert by_error.metric == "val_error"
    first, last = (lrwd_sweep.load("wr", at_restart=k) for k in (1, 3))
    assert lrwd_sweep.load("wr").frame.equals(last.frame)
    assert not first.frame.equals(last.frame)
    with pytest.raises(UsageError, match=r"^at_restart 4: study 'wr' has 3"):
        lrwd_sweep.load("wr", at_restart=4)


def test_a_preset_says_what_a_call_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweep, "grid", lambda sweep: None)
    Path("mine.toml").write_text('like = "digits"\nvariants = ["sgd"]\n[training]\nepochs = 3\n')
    found = lrwd_sweep.sweep(preset="mine.toml", seeds=5, progress=False)
    assert found.name == "mine-digits-mlp-norm-sgd-cosine-3ep-b64"
    assert found.surface.values.shape == (11, 11, 5)
    assert lrwd_sweep.sweep(progress=False).optimizer == "adamw"
    assert list(lrwd_sweep.compare(progress=False).studies) == ["adam", "adamw"]


def test_every_optimizer_that_the_command_line_names_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweep, "grid", lambda sweep: None)
    for name in optimizer_names():
        assert lrwd_sweep.sweep(name, progress=False).optimizer == name


def test_progress_is_told_on_stderr_or_not_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    tiny(progress=True)
    told = capfd.readouterr()
    assert told.out == ""
    assert "trained 8 lanes" in told.err
    tiny("adam")
    assert capfd.readouterr() == ("", "")


def test_torch_and_blas_keep_the_threads_that_they_had() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with ThreadpoolController().limit(limits=2, user_api="blas"):
            tiny()
            found = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
        assert torch.get_num_threads() == 3
        assert found == {2}
    finally:
        torch.set_num_threads(before)


def test_a_sweep_runs_in_any_thread() -> None:
    found: list[Study] = []
    thread = threading.Thread(target=lambda: found.append(tiny()))
    thread.start()
    thread.join()
    assert len(found[0].frame) == 8


# Comparisons


def test_a_comparison_is_that_of_the_results() -> None:
    axes: dict[str, Any] = {"lr": LR, "weight_decay": WEIGHT_DECAY, "epochs": 2, "seeds": 3}
    found = lrwd_sweep.compare(["adam", "adamw"], progress=False, **axes)
    assert_type(found, Comparison)
    assert list(found.studies) == ["adam", "adamw"]
    a, b = found.studies.values()
    assert found.differences == {"adamw": comparison(a.result, b.result).comparison}
    assert found.verdict == found.differences["adamw"].verdict
    assert found.frame["study"].value_counts().to_dict() == {"adam": 12, "adamw": 12}
    assert found.frame[found.frame["study"] == "adamw"]["val_loss"].tolist() == b.frame["val_loss"].tolist()
    assert repr(found) == "<Comparison: adam undetermined, adamw undetermined>"
    assert found.verdict.split()[0] in str(found)
    assert len([1 for tag, n in elements(parsed(found._repr_html_())) if n.get("class") == "study"]) == 2
    loaded = Comparison(lrwd_sweep.load(a.name), lrwd_sweep.load(b.name))
    assert loaded.differences == found.differences
    with open_store(write=False) as store:
        assert store.latest() == [a.name, b.name]  # what `lrwd-sweep report` shows


@pytest.mark.parametrize("names", [["adam"], "adam", ["adam", "adam"]])
def test_one_optimizer_is_no_comparison(names: Any) -> None:
    with pytest.raises(UsageError, match="two or more different optimizers"):
        lrwd_sweep.compare(names)


def test_a_study_is_not_compared_with_itself(swept: Study) -> None:
    for studies in ((), (swept, swept)):
        with pytest.raises(UsageError, match="different studies"):
            Comparison(*studies)


# Interruption


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A signal comes when the first pack is stored; put its number into the list."""
    add, numbers = Store.add_trials, list[int]()

    def add_and_signal(*given: Any) -> None:
        add(*given)
        if numbers:
            signal.raise_signal(numbers.pop())

    monkeypatch.setattr(Store, "add_trials", add_and_signal)
    return numbers


def test_ctrl_c_keeps_what_is_finished_and_the_same_call_continues(interrupting: list[int]) -> None:
    interrupting.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="every finished pack is kept; the same call continues"):
        tiny(max_lanes=1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    kept = stored()
    assert 0 < len(kept) < 8
    tiny(max_lanes=1)
    tiny(max_lanes=1, storage="whole.db")
    assert [trial for trial in stored() if trial in kept] == kept
    assert stored() == stored("whole.db")


def test_sigterm_does_what_the_program_around_has_it_do(interrupting: list[int]) -> None:
    class Ended(Exception):
        pass

    def end(number: int, _: object) -> None:
        raise Ended(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        interrupting.append(signal.SIGTERM)
        with pytest.raises(Ended):
            tiny(max_lanes=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert 0 < len(stored()) < 8


# Errors


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"epoch": 3}, UnknownName, "unknown keyword 'epoch'; did you mean epochs?"),
        ({"optimizer": "admw"}, UnknownName, "unknown optimizer 'admw'; did you mean adamw"),
        ({"optimizer": 3}, UsageError, "optimizer 3 is not text"),
        ({"preset": "digit"}, UnknownName, "did you mean digits?"),
        ({"batch_size": 1}, UsageError, "^batch_size 1 leaves"),
        ({"epochs": 0}, UsageError, "^epochs 0 is not a whole number"),
        ({"lr": 0.1}, UsageError, "^lr 0.1 is no axis"),
        ({"weight_decay": [0.1]}, UsageError, "^weight_decay '0.1' is a single value"),
        ({"seeds": 0}, UsageError, "^seeds 0 is not a whole number"),
        ({"seeds": True}, UsageError, "^seeds True is not a whole number"),
        ({"seeds": (1, 2)}, UsageError, "^seeds .* is not a whole number"),
        ({"max_lanes": 0}, UsageError, "^max_lanes 0 is not a whole number"),
        ({"metric": "loss"}, UnknownName, "unknown metric 'loss'"),
        ({"t_0": 3}, UsageError, "^t_0 means nothing to schedule cosine"),
        ({"momentum": 0.5}, UsageError, "^momentum means nothing to adam"),
        ({"download": True}, UsageError, "^download=True means nothing to digits"),
        ({"device": "tpu"}, UnknownName, "unknown device 'tpu'"),
        ({"device": 0}, UsageError, "^device 0 is not text"),
        ({"study_name": " "}, UsageError, "^study_name ' ' is not a name"),
        ({"storage": ":memory:"}, StoreError, "^storage ':memory:' names no file"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_mistake_is_one_line_in_words_of_the_call(
    asked: dict[str, Any], kind: type[LrwdError], said: str
) -> None:
    with pytest.raises(kind, match=said) as raised:
        lrwd_sweep.sweep(**asked)
    assert "\n" not in str(raised.value)
    assert "--" not in str(raised.value)
    assert not Path("lrwd-sweep.db").exists()


def test_a_study_that_is_not_there_names_the_near_one() -> None:
    with pytest.raises(NothingToReport):
        lrwd_sweep.load(NAME)
    tiny(study_name="mine")
    with pytest.raises(UnknownName, match="did you mean mine"):
        lrwd_sweep.load("mien")


# The README


def test_every_python_block_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one folder, as written; one that begins with a file's name is that file."""
    assert BLOCKS, "README.md has no ```python block"
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    for block in BLOCKS:
        if named := re.match(r"# (\w+\.py)\n", block):
            Path(named[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    for path in tmp_path.glob("*.py"):
        assert path.stem in set(sys.modules) - modules, f"nothing imports {path.name}"
        monkeypatch.delitem(sys.modules, path.stem)
