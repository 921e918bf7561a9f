"""Recommended code and commands survive being copied, from a narrow terminal and from markdown."""

import ast
import re
import shlex
import textwrap
from dataclasses import replace
from functools import cache
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lrwd_sweep.report.recommend import Recommendations, recommendations
from lrwd_sweep.report.recommend.command import Advice
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view.ci import code_block, markdown
from lrwd_sweep.report.view.tables import new_lines, snippet
from lrwd_sweep.report.view.terminal import Recipes, python_lines, shell_lines
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import MomentumForm, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import drawn, study

WIDTHS = [50, 80, 120]
TASKS = [
    Task(),
    Task(schedule=Schedule.FIXED, momentum=0.5, nesterov=True, decay_all=False),
    Task(schedule=Schedule.RESTARTS, momentum_form=MomentumForm.TORCH, decay_all=False, beta1=0.85),
]


@cache
def complete(optimizer: str, task: Task = TASKS[0], name: str = "study", *, digits: bool = False) -> Result:
    """Return a study with its best cell in a corner, or at rates and decays that take all their digits."""
    axis = tuple(1.23456789012e-5 * 3**k if digits else 2.0 ** (k - 9) for k in range(5))
    spec = replace(study(name, optimizer).spec, task=task, lattice=Lattice(axis, axis))
    losses = {cell: cell.lr + cell.weight_decay for cell in spec.lattice.cells()}
    losses |= {} if digits else {Cell(axis[-1], axis[-1]): 0.0}
    trials = [
        Trial(cell, seed, Status.COMPLETE, {"val_loss": losses[cell]})
        for cell in losses
        for seed in spec.seeds
    ]
    return result(name, spec, "", trials)


def recipes(found: Result, width: int = 80, encoding: str = "utf-8") -> str:
    return drawn(Recipes("it", found, recommendations(found)), width, encoding)


def test_recipes_are_python_fit_every_width_and_repeat_nothing() -> None:
    for k, (name, task) in enumerate(product(optimizer_names(), TASKS)):
        found = complete(name + ("", ":normalized")[k % 2], task, digits=True)
        text = snippet(found, recommendations(found))
        assert "\n\n" not in text, (name, task)
        assert len(ast.parse(text).body) >= 2, (name, task)
        for cell, width in product(recommendations(found).cells, WIDTHS):
            for line in cell.lines:
                folded = textwrap.dedent("\n".join(python_lines(line.code, width - 3, "   ")))
                assert ast.dump(ast.parse(folded)) == ast.dump(ast.parse(line.code)), (name, task)
                if width >= 80 or "\n" not in line.code:
                    most = max(width, 80) if "\n" in line.code or task is not TASKS[0] else width
                    assert max(map(len, folded.splitlines()), default=0) <= most, (name, width)
    for name, width in product(optimizer_names(), WIDTHS):
        assert max(map(cell_len, recipes(complete(name), width).splitlines())) <= width, (name, width)
    text = recipes(complete("sgd"), 200, "ascii")
    assert "\\u" not in text
    assert "m <- beta1*m + eta*alpha*(g + lambda'*theta) ; theta <- theta - m" in text
    found = complete("adamw", TASKS[1], digits=True)
    given, text = recommendations(found), recipes(found)
    assert snippet(found, given).count("weights = ") == text.count("weights = ") == 1
    assert text.count("AdamW(params") == 3  # two of the first cell, and the second's own
    first, second = new_lines(recommendations(complete("sgd")).cells)
    assert [any(line.remark for line in lines) for lines in (first, second)] == [True, False]
    nothing = Recommendations((), "no cell counts", (Advice("lower it"),))
    lines = [line.strip() for line in drawn(Recipes("it", study(), nothing)).splitlines()]
    assert lines == ["it: values to use", "most forgiving: no cell counts", "next: lower it"]


words = st.lists(st.text("abc=-2^:,.'$ é", min_size=1, max_size=200).map(shlex.quote), min_size=1, max_size=6)


@given(words, st.sampled_from(WIDTHS))
def test_command_on_several_lines_is_one_to_a_shell(parts: list[str], width: int) -> None:
    lines = shell_lines(parts, width, "   ")
    assert shlex.split(re.sub(r"\\\n", "", "\n".join(lines))) == shlex.split(" ".join(parts))


def test_markdown_holds_the_same_code_in_fences_that_it_cannot_close() -> None:
    found = complete("adamw", name="```[x](y) <b>")
    text = markdown([found])
    commands = re.findall(r"`{3,}sh\n(.*?)\n`{3,}", text, flags=re.DOTALL)
    assert commands == [advice.command_line for advice in recommendations(found).next]
    assert f"\n```python\n{snippet(found, recommendations(found))}\n```\n" in text
    assert code_block("a ```` b\n<script>", "sh") == "`````sh\na ```` b\n<script>\n`````"
