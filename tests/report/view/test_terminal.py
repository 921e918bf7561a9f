"""Recommended values and commands survive being copied, from a narrow terminal and from markdown."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import textwrap
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lrwd_sweep.report.recommend import Recommendations, recommendations
from lrwd_sweep.report.recommend.advice import Advice
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view.markdown import code_block, markdown
from lrwd_sweep.report.view.terminal import Recipes, new_lines, python_lines, shell_lines, snippet
from lrwd_sweep.report.view.terminal import Report
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.spec.task import MomentumForm, Task
from tests.report.view.examples import HOSTILE, drawn, study

WIDTHS = [50, 80, 120]


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


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", optimizer_names())
def test_code_is_python_at_every_width(name: str, width: int) -> None:
    found = recommendations(complete(name))
    for cell in found.cells:
        for line in cell.lines:
            folded = python_lines(line.code, width)
            assert ast.dump(ast.parse("\n".join(folded))) == ast.dump(ast.parse(line.code))
            if "\n" not in line.code:
                assert max(map(len, folded), default=0) <= width
            else:
                assert max(map(len, folded)) <= max(width, 80)


TRAININGS = [
    Task(),
    Task(schedule=Schedule.FIXED, momentum=0.5, nesterov=True, decay_all=False),
    Task(schedule=Schedule.RESTARTS, momentum_form=MomentumForm.TORCH, decay_all=False, beta1=0.85),
]


def with_training(optimizer: str, task: Task) -> Result:
    """The same of another training, at rates and decays that take all their digits."""
    found = complete(optimizer)
    axis = tuple(1.23456789012e-5 * 3**k for k in range(4))
    spec = replace(found.spec, task=task, lattice=Lattice(axis, axis))
    trials = [
        Trial(cell, seed, Status.COMPLETE, {"val_loss": cell.lr + cell.weight_decay})
        for cell in spec.lattice.cells()
        for seed in spec.seeds
    ]
    return result("study", spec, "", trials)


@pytest.mark.parametrize("normalized", ["", ":normalized"])
@pytest.mark.parametrize("training", TRAININGS, ids=lambda task: str(task.schedule))
@pytest.mark.parametrize("name", optimizer_names())
def test_code_survives_being_copied_from_a_terminal_of_80_columns(
    name: str, task: Task, normalized: str
) -> None:
    found = with_training(name + normalized, task)
    for cell in recommendations(found).cells:
        for line in cell.lines:
            folded = python_lines(line.code, 77, "   ")
            assert max(map(len, folded), default=0) <= 80
            ast.parse(textwrap.dedent("\n".join(folded)))


@pytest.mark.parametrize("training", TRAININGS, ids=lambda task: str(task.schedule))
@pytest.mark.parametrize("name", optimizer_names())
def test_a_plain_console_knows_every_formula(name: str, task: Task) -> None:
    text = recipes(with_training(name, task), 400, "ascii")
    for line in text.splitlines():
        if " theta <- " in line:
            assert not re.search(r"(?<!\w)(?:beta1m|etaalpha|lambdatheta|lambda'theta|wtheta)", line)


def test_groups_of_parameters_are_shown_once() -> None:
    found = with_training("adamw", TRAININGS[1])
    given = recommendations(found)
    assert len(given.cells) == 2
    assert snippet(found, given).count("weights = ") == 1
    text = recipes(found)
    assert text.count("weights = ") == 1
    assert text.count("AdamW(params") == 3  # two of the first cell, and the second's own


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", optimizer_names())
def test_nothing_is_wider_than_the_console(name: str, width: int) -> None:
    text = recipes(complete(name), width)
    assert max(map(cell_len, text.splitlines())) <= width


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


@pytest.mark.parametrize("name", optimizer_names())
def test_the_snippet_of_markdown_is_python(name: str) -> None:
    found = complete(name)
    text = snippet(found, recommendations(found))
    assert "\n\n" not in text
    tree = ast.parse(text)
    assert len(tree.body) >= 2


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


@pytest.mark.parametrize("kind", Kind)
def test_hostile_names_stay_on_their_line(kind: Kind) -> None:
    optimizer = Optimizer(None, DecayRule.INDEPENDENT, HOSTILE) if kind is Kind.IMPORT else "adamw"
    found = study(HOSTILE, optimizer, kind=kind)
    for text in (recipes(found), markdown([found])):
        assert not set("\x1b\x07\x9b\u202e") & set(text)
    assert all(given.command is None for given in recommendations(found).next)


def test_no_backticks_close_a_block_of_code() -> None:
    text = code_block("a ```` b\n<script>", "sh")
    assert text.startswith("`````sh\n")
    assert text.endswith("\n`````")


def test_a_printable_name_may_look_like_markdown() -> None:
    found = complete(name="```[x](y) <b>")
    command = recommendations(found).next[0].command_line
    assert command is not None
    assert f"````sh\n{command}\n````" in markdown([found])


def test_a_plain_console_gets_words_for_letters() -> None:
    text = recipes(complete("sgd"), 200, "ascii")
    assert "\\u" not in text
    assert "m <- beta1*m + eta*alpha*(g + lambda'*theta) ; theta <- theta - m" in text


def test_where_nothing_counts_there_is_only_advice() -> None:
    nothing = Recommendations((), "no cell counts", (Advice("lower it"),))
    text = drawn(Recipes("it", study(), nothing))
    lines = [line.strip() for line in text.splitlines()]
    assert lines == ["it: values to use", "most forgiving: no cell counts", "next: lower it"]
