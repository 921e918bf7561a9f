"""Recommended code and commands survive being copied, from a narrow terminal and from markdown."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import textwrap
from dataclasses import replace
from functools import cache
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lrwd_sweep.report.recommend import Recommendations, recommendations
from lrwd_sweep.report.recommend.advice import Advice
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view.markdown import code_block, markdown
from lrwd_sweep.report.view.terminal import (
    Recipes,
    Report,
    new_lines,
    python_lines,
    shell_lines,
    snippet,
)
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.spec.task import MomentumForm, Task
from tests import studies
from tests.report.view.examples import HOSTILE, drawn, harmful, study

WIDTHS = [50, 80, 120]


@cache
def complete(optimizer: str = "adamw", name: str = "study") -> Result:
    """A study whose best cell is a corner of its lattice and whose most forgiving one is not."""
    spec = study(name, optimizer).spec
    corner = Cell(spec.lattice.lr[-1], spec.lattice.weight_decay[-1])
    trials = [
        Trial(cell, seed, Status.COMPLETE, {"val_loss": 0.01 if cell == corner else cell.lr + 0.001 * seed})
        for cell in spec.lattice.cells()
        for seed in spec.seeds
    ]
    return result(name, spec, "", trials)


def recipes(found: Result, width: int = 80, encoding: str = "utf-8") -> str:
    """What a console prints of one study."""
    return drawn(Recipes("it", found, recommendations(found)), width, encoding)


def test_code_is_python_at_every_width() -> None:
    for name, width in product(optimizer_names(), WIDTHS):
        for cell in recommendations(complete(name)).cells:
            for line in cell.lines:
                folded = python_lines(line.code, width)
                assert ast.dump(ast.parse("\n".join(folded))) == ast.dump(ast.parse(line.code)), name
                most = max(width, 80) if "\n" in line.code else width
                assert max(map(len, folded), default=0) <= most, (name, width)


TASKS = [
    Task(),
    Task(schedule=Schedule.FIXED, momentum=0.5, nesterov=True, decay_all=False),
    Task(schedule=Schedule.RESTARTS, momentum_form=MomentumForm.TORCH, decay_all=False, beta1=0.85),
]


@cache
def with_task(optimizer: str, task: Task) -> Result:
    """Return the same of another task, at rates and decays that take all their digits."""
    found = complete(optimizer)
    axis = tuple(1.23456789012e-5 * 3**k for k in range(4))
    spec = replace(found.spec, task=task, lattice=Lattice(axis, axis))
    trials = [
        Trial(cell, seed, Status.COMPLETE, {"val_loss": cell.lr + cell.weight_decay})
        for cell in spec.lattice.cells()
        for seed in spec.seeds
    ]
    return result("study", spec, "", trials)


def test_code_survives_being_copied_from_a_terminal_of_80_columns() -> None:
    ends = ("", ":normalized")
    for k, (name, task) in enumerate(product(optimizer_names(), TASKS)):
        case = name + ends[k % 2]
        for cell in recommendations(with_task(case, task)).cells:
            for line in cell.lines:
                folded = python_lines(line.code, 77, "   ")
                assert max(map(len, folded), default=0) <= 80, (case, task)
                ast.parse(textwrap.dedent("\n".join(folded)))


def test_ascii_formulas_have_explicit_products() -> None:
    for name, task in product(optimizer_names(), TASKS):
        for line in recipes(with_task(name, task), 400, "ascii").splitlines():
            if " theta <- " in line:
                wrong = r"(?<!\w)(?:beta1m|etaalpha|lambdatheta|lambda'theta|wtheta)"
                assert not re.search(wrong, line), (name, task.schedule)


def test_groups_of_parameters_are_shown_once() -> None:
    found = with_task("adamw", TASKS[1])
    given = recommendations(found)
    assert len(given.cells) == 2
    assert snippet(found, given).count("weights = ") == 1
    text = recipes(found)
    assert text.count("weights = ") == 1
    assert text.count("AdamW(params") == 3  # two of the first cell, and the second's own


def test_recipes_fit_the_console() -> None:
    for name, width in product(optimizer_names(), WIDTHS):
        assert max(map(cell_len, recipes(complete(name), width).splitlines())) <= width, (name, width)


words = st.lists(st.text("abc=-2^:,.'$ é", min_size=1, max_size=200).map(shlex.quote), min_size=1, max_size=6)


@given(words, st.sampled_from(WIDTHS))
def test_a_command_on_several_lines_is_one_to_a_shell(parts: list[str], width: int) -> None:
    lines = shell_lines(parts, width, "   ")
    assert shlex.split(re.sub(r"\\\n", "", "\n".join(lines))) == shlex.split(" ".join(parts))


def test_a_real_shell_puts_a_long_command_together_again() -> None:
    axis = ",".join(f"0.00{k}" for k in range(100, 130))
    command = "\n".join(shell_lines(("printf '%s\\n'", f"--lr {axis}", "--wd 2^-9:2^1"), 40, "   "))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["--lr", axis, "--wd", "2^-9:2^1"]


def test_a_remark_is_made_once() -> None:
    found = complete("sgd")
    cells = recommendations(found).cells
    assert len(cells) == 2
    first, second = new_lines(cells)
    assert all(line.remark for line in first)
    assert not any(line.remark for line in second)


def test_the_snippet_is_python() -> None:
    for name in optimizer_names():
        found = complete(name)
        text = snippet(found, recommendations(found))
        assert "\n\n" not in text, name
        assert len(ast.parse(text).body) >= 2, name


def test_every_study_has_its_values_and_what_to_do_next() -> None:
    studies = [complete("adam"), complete("sgdw")]
    text = drawn(Report(studies), 80)
    for name in ("adam", "sgdw"):
        assert f"\n{name}: values to use" in text
    assert text.count("\n best: ") == text.count("\n most forgiving: ") == 2
    assert text.count("\n next: ") >= 2
    assert text.index("separability") < text.index("values to use")


def test_markdown_holds_the_same_lines_in_blocks_of_code() -> None:
    found = complete("adamw")
    given = recommendations(found)
    text = markdown([found])
    (block,) = re.findall(r"```python\n(.*?)\n```", text, flags=re.DOTALL)
    for cell in given.cells:
        for line in cell.lines:
            assert line.code in block
    commands = re.findall(r"```sh\n(.*?)\n```", text, flags=re.DOTALL)
    assert commands == [advice.command_line for advice in given.next]
    assert all(f"**Next**: {advice.why}" in text for advice in given.next)


def test_hostile_names_stay_on_their_line() -> None:
    for kind in Kind:
        optimizer = Optimizer(None, DecayRule.INDEPENDENT, HOSTILE) if kind is Kind.IMPORT else "adamw"
        found = study(HOSTILE, optimizer, kind=kind)
        assert not harmful(recipes(found) + markdown([found])), kind
        assert all(given.command is None for given in recommendations(found).next), kind


def test_no_backticks_close_a_block_of_code() -> None:
    text = code_block("a ```` b\n<script>", "sh")
    assert text.startswith("`````sh\n")
    assert text.endswith("\n`````")


def test_a_name_may_look_like_markdown() -> None:
    found = complete(name="```[x](y) <b>")
    command = recommendations(found).next[0].command_line
    assert command is not None
    assert f"````sh\n{command}\n````" in markdown([found])


def test_ascii_console_gets_words_for_letters() -> None:
    text = recipes(complete("sgd"), 200, "ascii")
    assert "\\u" not in text
    assert "m <- beta1*m + eta*alpha*(g + lambda'*theta) ; theta <- theta - m" in text


def test_without_a_cell_that_counts_there_is_only_advice() -> None:
    nothing = Recommendations((), "no cell counts", (Advice("lower it"),))
    text = drawn(Recipes("it", study(), nothing))
    lines = [line.strip() for line in text.splitlines()]
    assert lines == ["it: values to use", "most forgiving: no cell counts", "next: lower it"]


def stopped() -> Result:
    """Return a study with one of three seeds per cell, and none in the last row."""
    every = [(i, j, seed) for i in range(7) for j in range(7) for seed in range(3)]
    return studies.without(studies.study(), *(lane for lane in every if lane[2] or lane[0] == 6))


def test_report_of_an_interrupted_study_gives_one_reason_and_no_best_cell() -> None:
    text = drawn(Report([stopped()]), 200)
    assert text.count("too few cells") == 1
    assert "undetermined: " not in text
    (edge,) = (line for line in text.splitlines() if "on the lattice's edge" in line)
    assert edge.split()[-1] == "–"
    assert "42 of 147 runs" in text
