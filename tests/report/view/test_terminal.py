"""Consoles obey the environment; recipes survive being copied; pages of presets fit and are complete."""

import ast
import io
import logging
import os
import re
import shlex
import textwrap
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from lrwd_sweep.report.recommend import Recommendations, recommendations
from lrwd_sweep.report.recommend.command import Advice
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view import ci, consoles, tables, terminal
from lrwd_sweep.report.view.preset_page import PresetList, PresetPage, SchedulePlot, caption, duration
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import MomentumForm, optimizer_names
from lrwd_sweep.science.schedule import Schedule, Timetable
from lrwd_sweep.spec.preset import find_preset, preset_names
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.report.view.examples import HOSTILE, drawn, harmful
from tests.spec.test_preset import studies
from tests.studies import study

WIDTHS = [50, 80, 120]
USUAL = Task()
FIXED = Task(schedule=Schedule.FIXED, momentum=0.5, nesterov=True, decay_all=False)
TORCH = Task(schedule=Schedule.RESTARTS, momentum_form=MomentumForm.TORCH, decay_all=False, beta1=0.85)


@cache
def complete(optimizer: str, task: Task = USUAL, name: str = "study", *, digits: bool = False) -> Result:
    """Return a study with its best cell in a corner, or at rates and decays that take all their digits."""
    axis = tuple(1.23456789012e-5 * 3**k if digits else 2.0 ** (k - 9) for k in range(5))
    lattice = Lattice(axis, axis)
    found = study(lambda a, b: (2**a + 2**b) * ((a, b) != (2, 2)), name, lattice=lattice, optimizer=optimizer)
    return result(name, replace(found.spec, task=task), "", found.trials)


def recipes(found: Result, *given: Any) -> str:
    return drawn(terminal.Recipes("it", found, recommendations(found)), *given)


def test_recipes_are_python_fit_every_width_and_repeat_nothing() -> None:
    for k, (name, trained) in enumerate(product(optimizer_names(), (USUAL, FIXED, TORCH))):
        found, case = complete(name + ("", ":normalized")[k % 2], trained, digits=True), (name, trained)
        text = tables.snippet(found, recommendations(found))
        assert ("\n\n" in text, len(ast.parse(text).body) >= 2) == (False, True), case
        for cell, width in product(recommendations(found).cells, WIDTHS):
            for line in cell.lines:
                folded = textwrap.dedent("\n".join(terminal.python_lines(line.code, width - 3, "   ")))
                assert ast.dump(ast.parse(folded)) == ast.dump(ast.parse(line.code)), case
                if width >= 80 or "\n" not in line.code:
                    most = max(width, 80) if "\n" in line.code or trained is not USUAL else width
                    assert max(map(len, folded.splitlines()), default=0) <= most, (case, width)
    for name, width in product(optimizer_names(), WIDTHS):
        recipes(complete(name), width)  # fit the width
    text = recipes(complete("sgd"), 200, "ascii")
    assert "\\u" not in text
    assert "m <- beta1*m + eta*alpha*(g + lambda'*theta) ; theta <- theta - m" in text
    found = complete("adamw", FIXED, digits=True)
    given, text = recommendations(found), recipes(found)
    assert tables.snippet(found, given).count("weights = ") == text.count("weights = ") == 1
    assert text.count("AdamW(params") == 3  # two of the first cell, and the second's own
    cells = tables.new_lines(recommendations(complete("sgd")).cells)
    assert [any(line.remark for line in lines) for lines in cells] == [True, False]
    nothing = Recommendations((), "no cell counts", (Advice("lower it"),))
    lines = [line.strip() for line in drawn(terminal.Recipes("it", study(), nothing)).splitlines()]
    assert lines == ["it: values to use", "most forgiving: no cell counts", "next: lower it"]


words = st.lists(st.text("abc=-2^:,.'$ é", min_size=1, max_size=200).map(shlex.quote), min_size=1, max_size=6)


@given(words, st.sampled_from(WIDTHS))
def test_command_on_several_lines_is_one_to_a_shell(parts: list[str], width: int) -> None:
    lines = terminal.shell_lines(parts, width, "   ")
    assert shlex.split(re.sub(r"\\\n", "", "\n".join(lines))) == shlex.split(" ".join(parts))


def test_markdown_holds_the_same_code_in_fences_that_it_cannot_close() -> None:
    found = complete("adamw", name="```[x](y) <b>")
    text = ci.markdown([found])
    commands = re.findall(r"`{3,}sh\n(.*?)\n`{3,}", text, flags=re.DOTALL)
    assert commands == [advice.command_line for advice in recommendations(found).next]
    assert f"\n```python\n{tables.snippet(found, recommendations(found))}\n```\n" in text
    assert ci.code_block("a ```` b\n<script>", "sh") == "`````sh\na ```` b\n<script>\n`````"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_console_depends_on_terminal_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    xterm = {"TERM": "xterm-256color"}
    for stream, environ, bold, colour in (
        (Terminal(), xterm, True, True),
        (Terminal(), {**xterm, "NO_COLOR": "1"}, True, False),
        (Terminal(), {"TERM": "dumb", "FORCE_COLOR": "1"}, False, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        (io.StringIO(), {**xterm, "CI": "1", "GITHUB_ACTIONS": "1", "CLICOLOR": "1"}, False, False),
    ):
        consoles.console_on(stream, environ).print(Text("x" * 90, style="bold red"))
        assert ("\x1b[1" in stream.getvalue(), "31m" in stream.getvalue()) == (bold, colour), environ
    ascii_only = io.TextIOWrapper(found := io.BytesIO(), encoding="ascii", write_through=True)
    consoles.console_on(ascii_only, {}).print("naïve [/x] :smile:")  # what the encoding lacks is escaped
    assert found.getvalue() == b"na\\xefve [/x] :smile:\n"
    for level, system in (("1", "256"), ("3", "truecolor")):
        console = consoles.console_on(io.StringIO(), {"FORCE_COLOR": level})
        assert (console.color_system, console.is_terminal) == (system, False)
    for columns, width in (("", 100), ("72", 72), ("0", 100), ("wide", 100)):
        assert consoles.console_on(io.StringIO(), {"COLUMNS": columns}).width == width, columns
    log = logging.getLogger("lrwd_sweep.anything")
    with consoles.logged("lrwd_sweep"):
        log.info("one [bold]thing[/]")
    log.info("another")
    assert capsys.readouterr() == ("", "one [bold]thing[/]\n")


def test_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    consoles.write_file(path, "λ\r\n\n")
    os.umask(mask := os.umask(0))
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    with pytest.raises(ZeroDivisionError), consoles.replaced(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (path.read_bytes(), list(tmp_path.iterdir())) == ("λ\r\n\n".encode(), [path])
    consoles.write_file(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()  # a device is written and not replaced
    line = "^--figure .*; name a file that can be written$"
    assert_raises(line, consoles.write_file, tmp_path, "x", "--figure")


def test_every_page_is_complete_and_fits_80_columns() -> None:
    for name in preset_names():
        preset, specs = find_preset(name), studies(name)
        lanes = [len(spec.lattice) * len(spec.seeds) for spec in specs]
        steps = sum(n * spec.task.steps for n, spec in zip(lanes, specs, strict=True))
        run = f"run lrwd-sweep {'transfer' if name == 'transfer-mini' else 'compare'} --preset {name}"
        of_all = f"in all {sum(lanes):,} lanes, {steps:,} lane-steps"
        wanted = [preset.restates, preset.claim, of_all, run, "time about a minute"]
        page = PresetPage(preset, name, specs, "about a minute")
        for encoding in ("utf-8", "ascii"):
            text = drawn(page, 80, encoding) + drawn(PresetList([preset]), 80, encoding)
            assert not re.search(r"\\[xu]", text), (name, encoding)
        assert preset.restates.split(" of ")[0] in " ".join(drawn(PresetList([preset])).split()), name
        text = " ".join(drawn(page, 100).split())
        assert [part for part in (*wanted, *(spec.formula for spec in specs)) if part not in text] == [], name
        assert ("κ 0.1 where Π acts, else 1" in text) == any("κ" in spec.formula for spec in specs), name
        assert drawn(page).count("┤") == 6 * len({spec.task.timetable for spec in specs}), name
    hostile = replace(preset, name=HOSTILE, about=HOSTILE, restates=HOSTILE, claim=HOSTILE)
    assert not harmful(drawn(PresetPage(hostile, HOSTILE, [])) + drawn(PresetList([hostile])))


def test_schedule_is_drawn_with_its_cycles_and_fits_any_console() -> None:
    timetable = Timetable(Schedule.RESTARTS, 60, 6, warmup=6, t_0=10, t_mult=2)
    one, *_, marks, axis = drawn(SchedulePlot(timetable), 60, "ascii").splitlines()
    assert one == "  1 |     #|:      ###|:              ####||::."
    assert [*marks.split(), *axis.split()] == ["^", "^", "0", "16", "36", "60"]
    for width, each in product((1, 40, 120), Schedule):
        text = drawn(SchedulePlot(replace(timetable, schedule=each)), width)
        assert max(map(cell_len, text.splitlines())) <= 80, (width, each)
    paper = caption(Timetable(Schedule.RESTARTS, 1800, 351, t_0=100, t_mult=2))
    assert paper == "restarts over 1800 epochs, T_0 = 100, T_mult = 2, ▲ snapshots after 100, 300, 700, 1500"
    cases = {0.0: "1 second", 99: "99 seconds", 101: "2 minutes", 7200: "2 hours", 86_400 * 30: "30 days"}
    assert {seconds: duration(seconds) for seconds in cases} == cases
