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
from lrwd_sweep.report.view.terminal import Recipes, Report, new_lines, python_lines, shell_lines, snippet
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.task import MomentumForm, Task
from tests.report.view.examples import drawn, study

WIDTHS = [50, 80, 120]
TASKS = [
    Task(),
    Task(schedule=Schedule.FIXED, momentum=0.5, nesterov=True, decay_all=False),
    Task(schedule=Schedule.RESTARTS, momentum_form=MomentumForm.TORCH, decay_all=False, beta1=0.85),
]


@cache
def filled(optimizer: str, name: str, task: Task, axis: tuple[float, ...], corner: bool) -> Result:
    """Return a study whose loss grows along both axes, its last cell the best if `corner`."""
    spec = replace(study(name, optimizer).spec, task=task, lattice=Lattice(axis, axis))
    trials = [
        Trial(cell, seed, Status.COMPLETE, {"val_loss": loss})
        for cell in spec.lattice.cells()
        for loss in [0.0 if corner and cell == Cell(axis[-1], axis[-1]) else cell.lr + cell.weight_decay]
        for seed in spec.seeds
    ]
    return result(name, spec, "", trials)


def complete(optimizer: str = "adamw", name: str = "study") -> Result:
    """Return a study whose best cell is a corner of its lattice and whose most forgiving one is not."""
    return filled(optimizer, name, Task(), tuple(2.0**k for k in range(-9, -4)), corner=True)


def with_task(optimizer: str, task: Task) -> Result:
    """Return a study of another task, at rates and decays that take all their digits."""
    return filled(optimizer, "study", task, tuple(1.23456789012e-5 * 3**k for k in range(4)), corner=False)


def recipes(found: Result, width: int = 80, encoding: str = "utf-8") -> str:
    return drawn(Recipes("it", found, recommendations(found)), width, encoding)


def test_code_is_python_at_every_width_and_fits_80_columns() -> None:
    for k, (name, task) in enumerate(product(optimizer_names(), TASKS)):
        case = name + ("", ":normalized")[k % 2]
        for cell, width in product(recommendations(with_task(case, task)).cells, WIDTHS):
            for line in cell.lines:
                folded = textwrap.dedent("\n".join(python_lines(line.code, width - 3, "   ")))
                assert ast.dump(ast.parse(folded)) == ast.dump(ast.parse(line.code)), (case, task)
                if width >= 80 or "\n" not in line.code:
                    most = max(width, 80) if "\n" in line.code or task is not TASKS[0] else width
                    assert max(map(len, folded.splitlines()), default=0) <= most, (case, width)


def test_recipes_fit_the_console_and_snippets_are_python() -> None:
    for name in optimizer_names():
        found = complete(name)
        text = snippet(found, recommendations(found))
        assert "\n\n" not in text, name
        assert len(ast.parse(text).body) >= 2, name
        for width in WIDTHS:
            assert max(map(cell_len, recipes(found, width).splitlines())) <= width, (name, width)
    text = recipes(complete("sgd"), 200, "ascii")
    assert "\\u" not in text
    assert "m <- beta1*m + eta*alpha*(g + lambda'*theta) ; theta <- theta - m" in text


def test_remarks_and_parameter_groups_are_shown_once() -> None:
    found = with_task("adamw", TASKS[1])
    given, text = recommendations(found), recipes(found)
    assert len(given.cells) == 2
    assert snippet(found, given).count("weights = ") == text.count("weights = ") == 1
    assert text.count("AdamW(params") == 3  # two of the first cell, and the second's own
    first, second = new_lines(recommendations(complete("sgd")).cells)
    assert [any(line.remark for line in lines) for lines in (first, second)] == [True, False]


words = st.lists(st.text("abc=-2^:,.'$ é", min_size=1, max_size=200).map(shlex.quote), min_size=1, max_size=6)


@given(words, st.sampled_from(WIDTHS))
def test_command_on_several_lines_is_one_to_a_shell(parts: list[str], width: int) -> None:
    lines = shell_lines(parts, width, "   ")
    assert shlex.split(re.sub(r"\\\n", "", "\n".join(lines))) == shlex.split(" ".join(parts))


def test_real_shell_joins_a_long_command() -> None:
    axis = ",".join(f"0.00{k}" for k in range(100, 130))
    command = "\n".join(shell_lines(("printf '%s\\n'", f"--lr {axis}", "--wd 2^-9:2^1"), 40, "   "))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["--lr", axis, "--wd", "2^-9:2^1"]


def test_every_study_has_values_to_use_and_next_steps() -> None:
    text = drawn(Report([complete("adam"), complete("sgdw")], full=True), 80)
    assert all(f"\n{name}: values to use" in text for name in ("adam", "sgdw"))
    assert text.count("\n best: ") == text.count("\n most forgiving: ") == 2
    assert text.count("\n next: ") >= 2
    nothing = Recommendations((), "no cell counts", (Advice("lower it"),))
    lines = [line.strip() for line in drawn(Recipes("it", study(), nothing)).splitlines()]
    assert lines == ["it: values to use", "most forgiving: no cell counts", "next: lower it"]


def test_markdown_holds_the_same_lines_in_blocks_of_code() -> None:
    for found in (complete("adamw"), complete(name="```[x](y) <b>")):
        given, text = recommendations(found), markdown([found])
        (block,) = re.findall(r"```python\n(.*?)\n```", text, flags=re.DOTALL)
        assert all(line.code in block for cell in given.cells for line in cell.lines)
        commands = re.findall(r"`{3,}sh\n(.*?)\n`{3,}", text, flags=re.DOTALL)
        assert commands == [advice.command_line for advice in given.next]
        assert "```[x]" not in "".join(map(str, commands)) or "````sh\n" in text
        assert all(f"**Next**: {advice.why}" in text for advice in given.next)
    text = code_block("a ```` b\n<script>", "sh")  # no backticks in it close the block
    assert text.startswith("`````sh\n")
    assert text.endswith("\n`````")
