"""The answer ends a report: verdicts, differences, what to use, and commands that train what they name."""

import math
import re
import shlex
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.answer import Line, Topic, answer, best_result, rounded
from lrwd_sweep.report.recommend.command import axis_text, command, compare_command, report_command
from lrwd_sweep.report.result import Result, Snapshot, comparison, result
from lrwd_sweep.report.view.terminal import MORE, Answer, Report
from lrwd_sweep.science.lattice import Cell, Lattice, parse_axis
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.preset import DEFAULT, Variant, find_preset
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.command_line import understood
from tests.refusal import assert_raises
from tests.report.view.examples import drawn, known, lost, stopped
from tests.specs import ours, spec, trainings
from tests.studies import mirrored, study

AXIS = tuple(2.0 ** np.arange(-11, 0))


@cache
def swept(
    slope: float = 0, name: str = "adamw", size: int = 11, bow: float = 0, shift: float = 0, **options: Any
) -> Result:
    """Return a study whose ridge has a slope and a bow; each seed and cell with noise of its own."""
    usual = find_preset("digits").lattice(Optimizer.parse(name))
    lattice = Lattice(*(axis[:: 10 // (size - 1)] for axis in (usual.lr, usual.weight_decay)))

    def height(a: float, b: float) -> float:
        return 0.1 + 0.002 * a**2 + 0.01 * (b + shift - slope * a + bow * (1 - (a / 5) ** 2)) ** 2

    given: dict[str, Any] = {"seeds": 5, "lattice": lattice, "optimizer": name, "noise": 0.002} | options
    return replace(study(height, None, stream=given["seeds"], **given), storage="/tmp/x.db")


def lines(*results: Result) -> list[Line]:
    return answer(results, [comparison(results[0], other) for other in results[1:]])


def printed(*results: Result, width: int = 80, encoding: str = "utf-8") -> list[str]:
    return drawn(Answer([*lines(*results), MORE]), width, encoding).splitlines()


def only(topic: Topic, *results: Result) -> Line:
    (found,) = (line for line in lines(*results) if line.topic is topic)
    return found


def test_verdict_says_what_it_means_in_use_and_if_the_ridge_bends() -> None:
    for slope, verdict, meaning in (
        (0.0, "SEPARABLE", "lr and wd can be tuned one at a time"),
        (-1.0, "PRODUCT-COUPLED", "keep lr × wd constant: double the lr → halve wd"),
        (-0.55, "COUPLED", "double the lr → divide wd by 1.5"),
        (0.6, "COUPLED", "double the lr → multiply wd by 1.5"),
    ):
        said, measured, means, *_ = only(Topic.VERDICT, swept(slope)).parts
        assert (said, means) == (verdict, meaning), slope
        assert re.fullmatch(r"slope −?\d\.\d\d \[−?\d\.\d\d, −?\d\.\d\d\]", measured), measured
    for bow, bends in ((4.0, True), (1.0, False)):
        assert ("; the ridge bends by 4 octaves" in only(Topic.VERDICT, swept(bow=bow)).parts[2]) is bends
    line = only(Topic.VERDICT, swept(-1.0, size=3))
    assert line.parts[1] == "no slope"
    assert re.match(r"raising lr by 10 octaves makes wd costlier by \d\.\d+ \[\d", line.parts[2])
    assert re.search(r"best wd 0\.5, 0\.0156, 4\.88e-4 at lr \S+ to \S+$", line.parts[2])
    assert "is not shown to change what wd costs" in only(Topic.VERDICT, swept(0.0, size=3)).parts[2]


def test_open_verdict_says_what_is_allowed_and_what_would_settle_it() -> None:
    few, noisy = only(Topic.VERDICT, swept(-1.0, seeds=1)), swept(-0.1, seeds=3, noise=0.15)
    assert few.parts[1].endswith("] (from rows)")
    assert few.parts[2] == "rows suggest product-coupled; a verdict needs 3 seeds, here 1"
    found = noisy.separability
    text = only(Topic.VERDICT, noisy).parts[2]
    assert text.startswith(" or ".join(found.allowed))
    assert f"; about {found.seeds_to_settle} seeds would tell" in text
    unfinished = only(Topic.VERDICT, stopped())
    assert unfinished.parts[1:] == ("no slope", "unfinished: 42 of 147 runs", "unfinished")
    assert only(Topic.VERDICT, lost()).parts[2] == "no cell counts"


def test_differences_are_settled_or_not_shown() -> None:
    adam, adamw = swept(-1.0, "adam"), swept(0.0)
    line = only(Topic.DIFFERENCE, adam, adamw)
    assert (line.label, line.parts[1]) == ("adamw − adam", "adamw is nearer to separable (settled)")
    assert line.parts[0].startswith("+1.0")
    assert only(Topic.DIFFERENCE, swept(0.0, "adam"), adamw).parts[1] == "a difference is not shown"
    line = only(Topic.DIFFERENCES, adam, adamw, swept(0.0, "sgd"), swept(-1.0, "sgdw"))
    assert [part.split()[0] for part in line.parts] == ["adamw", "sgd", "sgdw"]


def test_paste_is_the_best_study_with_few_digits() -> None:
    better, worse = swept(0.0), swept(0.0, "adam", noise=0.03, seeds=8)
    best = min((worse, better), key=lambda each: known(each.expected_best.value))
    assert known(best_result([worse, better]))[0] is best
    use = only(Topic.USE, better)
    assert use.code_line.startswith("torch.optim.AdamW(params, lr=")
    for found, told in (
        (better, r".*val_loss 0\.\d{3,4}, new seeds ≈ 0\.\d{3,4}; weight_decay is wd / lr, wd "),
        (mirrored(swept()), r"val_loss −0\.\d+ \(higher is better\)"),
    ):
        assert re.match(told, only(Topic.USE, found).parts[0]), told
    assert only(Topic.USE, lost()).parts == ("nothing: no cell counts",)
    assert "its code: see --full" in only(Topic.USE, swept(0.0, "sgdw")).parts[0]
    code = "torch.optim.Adam(params, lr=0.0625, betas=(0.9, 0.999), weight_decay=0.000690533966002)"
    coarse, fine = Lattice(AXIS, AXIS), Lattice((0.0625, 0.0626), AXIS)
    assert rounded(code, coarse).endswith("lr=0.0625, betas=(0.9, 0.999), weight_decay=6.91e-4)")
    assert rounded(code, fine) == code


def test_next_step_keeps_the_comparison_and_counts_its_runs() -> None:
    adam, noisy = swept(-1.0, "adam", seeds=3), swept(-0.1, seeds=3, noise=0.15)
    line, more = only(Topic.NEXT, adam, noisy), max(noisy.separability.seeds_to_settle or 0, 5)
    seeds = "" if more == 5 else f" --seeds {more}"  # five are the default
    assert line.code_line == f"lrwd-sweep compare adam adamw{seeds} --storage /tmp/x.db"
    cells = len(adam.spec.lattice) + len(noisy.spec.lattice)
    assert line.parts == (f"+{cells * (more - 3)} runs: {more} seeds should settle adamw",)
    settled = only(Topic.NEXT, swept(-1.0, "adam"), swept(0.0))
    nothing = "nothing: every verdict is settled, and no best cell is on the edge"
    assert (settled.code, settled.parts[0]) == ((), nothing)
    edge = only(Topic.NEXT, adam, swept(0.0, seeds=3, shift=5.5))
    first, again = edge.code_line.split(" && ")
    lattice = known(understood(first).spec).lattice
    assert min(lattice.weight_decay) < 2**-11
    runs = len(lattice) * 3 - 363
    assert edge.parts[0].startswith(f"+{runs} runs: adamw: the best wd of 11 of 11 rows is on the edge")
    assert shlex.split(again)[:2] == ["lrwd-sweep", "compare"] or adam.name in again
    assert only(Topic.NEXT, stopped()).parts == ("+105 runs: finishes the study",)
    imported = only(Topic.NEXT, swept(0.0, seeds=1, kind=Kind.IMPORT))
    assert (imported.code, imported.parts) == ((), ("a verdict needs 3 seeds or more",))


def test_answer_has_at_most_12_lines_and_its_code_can_be_pasted() -> None:
    two = [swept(-1.0, "adam"), swept()]
    four = [swept(-0.6, "adam"), swept(), swept(-1.0, "sgd"), swept(-0.15, "sgdw", noise=0.06)]
    one_seed = [swept(-1.0, "adam", seeds=1), swept(seeds=1)]
    for k, results in enumerate(([swept()], two, one_seed, four, [stopped()], [lost()])):
        words = shlex.split(only(Topic.NEXT, *results).code_line)
        for width in (60, 80, 160):
            text = printed(*results, width=width)
            assert len(text) <= 12 or width < 80, (k, width)
            last = [line.split()[0] for line in text if line[:4] in ("use ", "next", "more")]
            assert last == ["use", "next", "more"], (k, width)
            shown = "\n".join(text).partition("\nnext")[2].replace("\\\n", "").replace("'", "")
            assert not words or shlex.split(shown)[: len(words)] == words, (k, width)
    ascii_only = "\n".join(printed(*two, encoding="ascii"))
    assert "\\u" not in ascii_only
    assert "keep lr x wd constant: double the lr -> halve wd" in ascii_only
    report = Report(two, [comparison(*two)])
    assert drawn(report, 80).splitlines()[-5:] == printed(*two, width=80)[-5:]
    full = drawn(replace(report, full=True), 80)
    assert full.index("values to use") < full.index("\nuse ")
    assert "\nmore " not in full


def restarted(at_restart: int | None = None) -> Result:
    """Return AdamWR in cycles of 1, 2 and 4 epochs; one lane diverged after two of them, one at once."""
    lattice, trials = Lattice((0.01,), (0.1, 0.2, 0.4)), []
    for cell, cycles in zip(lattice.cells(), (2, 3, 0), strict=True):
        ends = ((1, 3.0), (3, 2.0), (7, 1.0))[:cycles]
        snapshots = {epoch: {"val_loss": k * cell.weight_decay} for epoch, k in ends}
        status = Status.COMPLETE if cycles == 3 else Status.DIVERGED
        curves = {"val_loss": tuple(map(float, range(7)))}
        trials.append(Trial(cell, 0, status, snapshots.get(7, {}), curves, "lost", snapshots))
    cycles_of = {"epochs": 7, "schedule": Schedule.RESTARTS, "t_0": 1, "t_mult": 2}
    trained = spec(optimizer="adamwr", lattice=lattice, seeds=(0,), **cycles_of)
    return result("wr", trained, "", trials, at_restart=at_restart)


def test_study_with_restarts_is_read_at_a_snapshot() -> None:
    assert_raises(r"at_restart=4: study 'wr' has 3, at .* 1, 3, 7; choose 1 to 3", restarted, 4)
    for k, at, epoch, factor, status in (
        (1, 1, 1, 3, CellStatus.COMPLETE),
        (2, 2, 3, 2, CellStatus.COMPLETE),
        (None, 3, 7, 1, CellStatus.DIVERGED),  # by default the last
    ):
        found = restarted(k)
        assert found.snapshot == Snapshot(at, epoch)
        assert found.surface.values[0, 1] == pytest.approx([0.2 * factor])
        assert {len(trial.curves["val_loss"]) for trial in found.trials} == {epoch}
        statuses = [found.surface.status(0, j) for j in (0, 2)]  # a lane counts until it diverges
        assert statuses == [status, CellStatus.DIVERGED]
        n = {1: 1, 2: 2, 3: 4}[at] * 6  # steps of the cycle
        assert found.conventions(Cell(0.01, 0.2)).independent == pytest.approx(0.2 / math.sqrt(n))


axes = st.lists(st.floats(1e-9, 1e3), min_size=2, max_size=6, unique_by=lambda v: f"{v:.12g}").map(tuple)
texts = st.sampled_from(["2^-9:2^1", "1e-4:1e-1:9", "2^-3:2^-2:5", "0.1,0.3,0.5"])
ranges = texts.map(lambda text: parse_axis(text, "lr"))
decays = st.builds(lambda zero, axis: (0.0,) * zero + axis, st.booleans(), axes | ranges)
lattices = st.builds(Lattice, axes | ranges, decays)
counts = st.integers(1, 9).map(lambda count: tuple(range(count)))
specs = st.builds(replace, ours, lattice=lattices, seeds=counts, task=trainings)
printable = st.text(min_size=1).filter(lambda text: text.isprintable() and bool(text.strip()))


def default(optimizer: str = "adamw") -> StudySpec:
    preset, variant = find_preset(DEFAULT), Variant.named(optimizer)
    lattice, task = preset.lattice(variant.optimizer), preset.task.changed(**variant.task)
    return StudySpec(Kind.GRID, variant.optimizer, lattice, tuple(range(preset.seeds)), preset.metric, task)


@given(specs, st.none() | printable, st.none() | printable)
def test_command_is_read_as_the_same_study(spec: StudySpec, name: str | None, storage: str | None) -> None:
    found = understood(" ".join(known(command(spec, name or spec.default_name, storage, points=12))))
    assert (found.spec, found.name, found.storage) == (spec, name or spec.default_name, storage)
    assert found.points == (12 if spec.kind is Kind.TPE else 0)
    assert parse_axis(axis_text(spec.lattice.weight_decay), "wd") == spec.lattice.weight_decay


def test_command_has_only_what_differs_from_the_preset_and_the_optimizer() -> None:
    for name in optimizer_names():
        words = ("lrwd-sweep grid", f"--optimizer {name}")
        assert command(default(name), default(name).default_name) == words
    for name, own, more in (
        ("sgd", Task(momentum=0.9, nesterov=True), "--nesterov"),
        ("rmsprop", Task(momentum=0.5, eps=1e-8), "--momentum 0.5"),
        ("rmsprop", Task(beta2=0.9), "--betas 0.9,0.9"),
        ("adam", Task(beta1=0.8, eps=1e-6), "--betas 0.8,0.999 --eps 1e-06"),
        ("adamp", Task(momentum=0.5, decay_all=False), "--no-decay-norm-bias"),
        ("adam", Task(no_decay="cls_token|pos", undecayed=("x",)), "--no-decay 'cls_token|pos'"),
        ("adamw", Task(schedule=Schedule.RESTARTS, t_mult=3), "--schedule restarts --tmult 3"),
        ("adam", Task(augment="crop-flip", warmup=5), "--augment crop-flip --warmup 5"),
    ):
        spec = replace(default(name), task=own)
        found = " ".join(known(command(spec, spec.default_name)))
        assert found == f"lrwd-sweep grid --optimizer {name} {more}"
    for name in ("adamwr", "sgdwr", "rmspropwr"):  # schedule and normalized decay
        plain = default(f"{name.removesuffix('r')}:normalized")
        spec = replace(plain, task=known(plain.task).changed(schedule=Schedule.RESTARTS))
        assert command(spec, spec.default_name) == ("lrwd-sweep grid", f"--optimizer {name}")
    text = "0,0.001,0.01:0.9:9,2.5,6"  # a range stays a range with values beside it
    assert axis_text(parse_axis(text, "wd")) == text


def test_name_means_nothing_to_the_shell_and_an_untypeable_one_has_no_command() -> None:
    for name in ("$(reboot)", "a; b", "it's", "-x", "--lr", "~", "*"):
        words = command(replace(default(), task=Task(data="cifar10")), name, name, data_dir=name)
        found = understood(" ".join(known(words)))
        assert (found.name, found.storage, found.data_dir) == (name, name, name)
    for one, name in (
        (replace(default(), task=None, kind=Kind.IMPORT), "mine"),
        (replace(default(), task=Task(sizes=DataSet(300, 9, 9, 10, (1, 8, 8)))), "mine"),
        (default(), "a\x1b[31m"),
        (default(), "a\nlrwd-sweep study delete x"),
    ):
        assert command(one, name) is None
        assert name == "mine" or report_command(name, "val_error", None) == ()
    report = report_command("a b", "val_error", "s.db")
    assert report == ("lrwd-sweep report 'a b'", "--metric val_error", "--storage s.db")


def test_studies_that_differ_only_in_their_optimizer_are_compared_by_one_command() -> None:
    lattice = Lattice((0.1, 0.2), (0.25, 0.5))
    specs = [replace(default(name), lattice=lattice, given_cap=2.5) for name in ("sgd", "sgdw")]
    found = compare_command({spec.default_name: spec for spec in specs}, "my store.db", "data")
    words = "lrwd-sweep compare sgd sgdw --lr 0.1,0.2 --wd 2^-2,2^-1 --cap 2.5 --data-dir data"
    assert " ".join(known(found)) == f"{words} --storage 'my store.db'"
    adam, adamw = default("adam"), default("adamw")
    both = {spec.default_name: spec for spec in (adam, adamw)}
    assert compare_command(both) == ("lrwd-sweep compare adam adamw",)
    preset = Request.of("fig2-mini").compared(())
    assert compare_command(preset) == ("lrwd-sweep compare --preset fig2-mini",)
    assert compare_command({adam.default_name: adam}) is None
    longer, search = replace(adamw, seeds=tuple(range(9))), replace(adamw, kind=Kind.TPE)
    for other, name in ((longer, longer.default_name), (adamw, "mine"), (search, search.default_name)):
        assert compare_command({adam.default_name: adam, name: other}) is None
