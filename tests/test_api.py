"""From Python a sweep is what it is on the command line: the same store and bits, in frames and pictures."""

import io
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, assert_type

import pytest
import torch
from rich.console import Console

import lrwd_sweep
from lrwd_sweep import Comparison, Study
from lrwd_sweep.errors import NothingToReport, SpecMismatch, UnknownName, UsageError
from lrwd_sweep.report.result import comparison, result
from lrwd_sweep.report.trained_study import Best
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.runner.study_loop import StudyLoop
from lrwd_sweep.store import Lane, Store, open_store
from tests.cli.conftest import ADAM, ADAMW, trained, trials
from tests.refusal import assert_raises
from tests.report.view.examples import study

pytestmark = pytest.mark.usefixtures("folder")
Patch = pytest.MonkeyPatch
TINY: Any = {"lr": "2^-7:2^-6", "weight_decay": [0.01, 0.1], "epochs": 2, "seeds": 2, "progress": False}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return tiny(storage=tmp_path_factory.mktemp("swept") / "here.db")


def tiny(optimizer: str = "adamw", **others: Any) -> Study:
    return lrwd_sweep.sweep(optimizer, **TINY | others)


def test_sweep_equals_the_command_line(monkeypatch: Patch, capfd: pytest.CaptureFixture[str]) -> None:
    tiny(progress=True)
    told = capfd.readouterr()
    assert (told.out, "trained 8 runs" in told.err) == ("", True)
    with monkeypatch.context() as patch:
        patch.delattr(Execution, "train")  # the same call trains nothing, and without progress says nothing
        tiny()
    assert capfd.readouterr() == ("", "")
    options = "--lr 2^-7:2^-6 --wd 0.01,0.1 --epochs 2 --seeds 2 --storage other.db"
    trained(Path(), "grid", *options.split())
    assert trials() == trials("other.db")


def test_a_larger_call_extends_the_study(folder: Path, monkeypatch: Patch) -> None:
    path = folder / "a.db"
    first = tiny(storage=path)
    monkeypatch.setenv("LRWD_STORAGE", str(path))
    more = tiny(weight_decay=[0.001, 0.01, 0.1], seeds=3).frame
    assert len(more) == 2 * 3 * 3
    assert more.merge(first.frame[["lr", "weight_decay", "seed"]]).equals(first.frame)  # not a bit differs
    for storage in (str(path), f"sqlite:///{path}", None):
        assert [found.name for found in lrwd_sweep.studies(storage)] == [ADAMW]
    assert [*folder.iterdir()] == [path]
    assert_raises(r"epochs: 2, 3.*study_name$", tiny, error=SpecMismatch, study_name=ADAMW, epochs=3)
    Path("else").mkdir()
    monkeypatch.chdir("else")
    assert len(first.curves()) == 2 * len(more)  # from the store that it was read from


def test_a_preset_says_what_a_call_leaves_open(monkeypatch: Patch) -> None:
    monkeypatch.setattr(StudyLoop, "grid", lambda loop: None)
    Path("mine.toml").write_text('like = "digits"\nvariants = ["sgd"]\n[training]\nepochs = 3\n')
    found = lrwd_sweep.sweep(preset="mine.toml", seeds=5, progress=False)
    assert found.name == "mine-digits-mlp-norm-sgd-cosine-3ep-b64"
    assert found.surface.values.shape == (11, 11, 5)
    assert lrwd_sweep.sweep(progress=False).optimizer == "adamw"
    assert list(lrwd_sweep.compare(progress=False).studies) == ["adam", "adamw"]


def test_a_sweep_in_any_thread_leaves_the_settings_of_torch() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        ThreadPoolExecutor(1).submit(tiny).result()
        assert (len(trials()), torch.get_num_threads()) == (8, 3)
    finally:
        torch.set_num_threads(before)


def test_a_signal_keeps_what_is_finished_and_the_same_call_continues(monkeypatch: Patch) -> None:
    add, numbers, said = Store.add_trials, list[int](), "the work so far is kept; the same call continues"

    def add_and_signal(*given: Any) -> list[Lane]:
        kept = add(*given)
        if numbers:
            signal.raise_signal(numbers.pop())  # when the first pack is stored
        return kept

    def end(*_: object) -> None:  # as the program around has it
        raise ZeroDivisionError(said)

    def train(store: str) -> list[Any]:
        lrwd_sweep.compare(["adam", "adamw"], max_lanes=1, storage=store, **TINY)
        return [trials(store, name) for name in (ADAM, ADAMW)]

    monkeypatch.setattr(Store, "add_trials", add_and_signal)
    whole, int_handler = train("whole.db"), signal.default_int_handler  # even if SIGINT is ignored
    signals: Any = (signal.SIGINT, int_handler, KeyboardInterrupt), (signal.SIGTERM, end, ZeroDivisionError)
    for number, handler, error in signals:
        before, store = signal.signal(number, handler), f"{number}.db"
        numbers.append(number)
        try:
            with pytest.raises(error, match=said):
                train(store)
            assert signal.getsignal(number) is handler
        finally:
            signal.signal(number, before)
        kept = trials(store, ADAM)
        assert 0 < len(kept) < len(whole[0]) == len(whole[1]) == 8
        with open_store(store, write=False) as opened:
            assert opened.latest() == [ADAM, ADAMW]  # what `lrwd-sweep report` shows
        assert train(store) == whole
        assert whole[0].items() >= kept.items()


calls: list[float] = []  # of `own_data`, with the scale of its numbers


def own_data() -> Any:
    calls.append(calls[0])
    x, y = calls[0] * torch.arange(120.0).reshape(60, 2), torch.arange(60) % 2
    return (x[:40], y[:40]), (x[40:], y[40:])


def test_every_call_reads_user_data_once() -> None:
    def swept(call: Any, scale: float, **options: Any) -> Any:
        calls[:] = [scale]
        own = {"epochs": 1, "seeds": 1, "batch_size": 8, "data": f"{__name__}:own_data"}
        found = call(**TINY | own | options)
        assert len(calls) == 2
        return found

    first = swept(lrwd_sweep.sweep, 0.01)
    assert_raises(r"data of .*:own_data, which changed", swept, lrwd_sweep.sweep, 0.02, error=SpecMismatch)
    other = swept(lrwd_sweep.sweep, 0.02, study_name="other")
    assert not other.frame["val_loss"].equals(first.frame["val_loss"])
    swept(lrwd_sweep.compare, 0.01, optimizers=["sgdw", "adamw"])


def test_tpe_equals_the_command_line_and_continues(monkeypatch: Patch) -> None:
    def search(points: int) -> Study:
        axis = "2^-7:2^-3"
        return lrwd_sweep.tpe(trials=points, **TINY | {"lr": axis, "weight_decay": axis, "epochs": 1})

    first, found = search(4).frame, search(6)
    options = "--lr 2^-7:2^-3 --wd 2^-7:2^-3 --epochs 1 --seeds 2 --storage other.db"
    for points in ("4", "6"):
        trained(Path(), "tpe", "--trials", points, *options.split())
    assert len(trials(name=found.name)) == 12
    assert trials(name=found.name) == trials("other.db", found.name)
    monkeypatch.delattr(Execution, "train")
    again = search(6).frame
    assert first.merge(again).equals(first)  # not a bit of a lane differs
    with pytest.raises(AttributeError):
        search(7)


def test_a_study_is_what_the_store_holds_and_shows_itself_everywhere(swept: Study) -> None:
    frame, lanes = swept.frame, [trial for _, trial in sorted(trials(str(swept.store)).items())]
    assert len(frame) == len(lanes) == 2 * 2 * 2
    for row, t in zip(frame.to_dict("records"), lanes, strict=True):
        lane = {"lr": t.cell.lr, "weight_decay": t.cell.weight_decay, "seed": t.seed, "status": t.status}
        assert row == {**lane, "detail": t.detail, **t.metrics}
    assert list(frame)[5] == swept.metric == "val_loss"
    curves = swept.curves()
    for name in lanes[0].curves:
        assert curves[name].tolist() == [value for trial in lanes for value in trial.curves[name]]
    means = frame.groupby(["lr", "weight_decay"])["val_loss"].mean()
    assert swept.surface.mean.ravel() == pytest.approx(means.to_numpy(), rel=1e-14)
    assert_type(swept.best, Best | None)
    best: Any = swept.best
    assert (best.lr, best.weight_decay) == means.idxmin()
    assert best.value == pytest.approx(means.min(), rel=1e-14)
    assert None not in (best.sem, best.test_value)
    shown = f"<Study '{ADAMW}' of adamw: 2×2 cells × 2 seeds; undetermined; best val_loss "
    assert repr(swept).startswith(shown)
    assert "torch.optim.AdamW(params" in swept.recipe
    assert swept.formula in str(swept)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    console.print(swept)
    assert "\x1b[" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "background-color: #" in swept._repr_html_()
    lost = Study(result("lost", study().spec, "", []), Path("lost.db"))
    assert (lost.best, lost.recipe) == (None, "")
    assert "25 missing" in repr(lost)
    assert "no cell has a value" in lost._repr_html_()


def test_a_comparison_is_that_of_the_results() -> None:
    found = lrwd_sweep.compare(["adam", "adamw"], **TINY | {"seeds": 3})
    assert_type(found, Comparison)
    assert list(found.studies) == ["adam", "adamw"]
    a, b = found.studies.values()
    assert found.differences == {"adamw": comparison(a.result, b.result).comparison}
    assert found.verdict == found.differences["adamw"].verdict
    assert found.frame["study"].value_counts().to_dict() == {"adam": 12, "adamw": 12}
    assert found.frame[found.frame["study"] == "adamw"]["val_loss"].tolist() == b.frame["val_loss"].tolist()
    assert repr(found) == "<Comparison: adam undetermined, adamw undetermined>"
    assert found.verdict.split()[0] in str(found)
    assert found._repr_html_().count(": values to use") == 2
    assert Comparison(*(lrwd_sweep.load(one.name) for one in (a, b))).differences == found.differences
    for names in (["adam"], "adam", ["adam", "adam"]):
        assert_raises("two or more different optimizers", lrwd_sweep.compare, names)
    for studies in ((), (a, a)):
        assert_raises("different studies", Comparison, *studies)


def test_the_package_has_its_names_and_loads_nothing_heavy_and_a_study_no_torch(swept: Study) -> None:
    heavy = {"torch", "sqlalchemy", "rich", "numpy", "pandas", "optuna", "jinja2", "typer"}
    for code, absent in (
        ("lrwd_sweep.LrwdError; dir(lrwd_sweep)", heavy),
        (f"lrwd_sweep.load({ADAMW!r}, storage={str(swept.store)!r})._repr_html_()", {"torch"}),
    ):
        whole = f"import sys, lrwd_sweep; {code}; print(*sys.modules)"
        loaded = subprocess.check_output([sys.executable, "-c", whole], text=True).split()
        assert not absent & {name.split(".")[0] for name in loaded}, code
    modules, public = {path.stem for path in Path(lrwd_sweep.__file__).parent.iterdir()}, lrwd_sweep.__all__
    assert not modules & {*public}  # whose import would take the place of the name
    assert [getattr(lrwd_sweep, name).__name__ for name in public] == public
    assert {*public} <= {*dir(lrwd_sweep)}
    with pytest.raises(AttributeError, match="'lrwd_sweep' has no attribute 'sweeps'"):
        lrwd_sweep.sweeps  # noqa: B018


def test_a_mistake_is_one_line_that_names_the_keyword() -> None:
    cases: Any = [
        ({"epoch": 3}, UnknownName, "unknown keyword 'epoch'; did you mean epochs?"),
        ({"optimizer": 3}, UsageError, "^optimizer=3 is not text"),
        ({"download": True}, UsageError, "^download=True has no effect on digits"),
        ({"device": "tpu"}, UnknownName, "unknown device 'tpu'"),
        ({"study_name": " "}, UsageError, "^study_name=' ' is not a name"),
        ({"checkpoint_every": -1}, UsageError, "^checkpoint_every=-1 is too small"),
        ({"max_lanes": 0}, UsageError, "^max_lanes=0 is not a whole number"),
        ({"shard": "0/3"}, UsageError, "^shard='0/3' is not the K-th"),
        ({"shard": "1/3", "refine": True}, UsageError, "^refine=True decides from all results"),
        ({"spool": "x"}, UsageError, "^spool='?x'? has no effect without executor="),
    ]
    for asked, error, said in cases:
        assert_raises(f"(?!.*--){said}", lrwd_sweep.sweep, error=error, **asked)
    assert_raises("^trials=0 is not a whole number", lrwd_sweep.tpe, trials=0)
    assert not Path("lrwd-sweep.db").exists()
    assert_raises("lrwd-sweep compare", lrwd_sweep.load, ADAMW, error=NothingToReport)
    tiny(study_name="mine")
    assert_raises("did you mean mine", lrwd_sweep.load, "mien", error=UnknownName)
