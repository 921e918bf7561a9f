"""The answer ends a report: verdicts, differences, what to use and do next, at the requested restart."""

import math
import re
import shlex
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from lrwd_sweep.report.answer import Line, Topic, answer, best_result, rounded
from lrwd_sweep.report.result import Result, Snapshot, comparison, result
from lrwd_sweep.report.view.terminal import MORE, Answer, Report
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.preset import find_preset
from lrwd_sweep.spec.study import Kind
from tests.command_line import understood
from tests.refusal import assert_raises
from tests.report.view.examples import drawn, known, lost, stopped
from tests.specs import spec
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
    for width, most in ((80, 45), (160, 30)):  # two lattices and their answer fit a screen
        text = drawn(report, width).splitlines()
        assert len(text) <= most, width
        assert text[-5:] == printed(*two, width=width)[-5:]
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
