"""The pages of presets are complete, fit 80 columns and draw their schedules."""

import re
from dataclasses import replace
from itertools import product

from rich.cells import cell_len

from lrwd_sweep.report.view.preset_page import PresetList, PresetPage, SchedulePlot, caption, duration
from lrwd_sweep.science.schedule import Schedule, Timetable
from lrwd_sweep.spec.preset import find_preset, preset_names
from tests.report.view.examples import HOSTILE, drawn, harmful
from tests.spec.test_preset import studies


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_every_page_is_complete_and_fits_80_columns() -> None:
    for name in preset_names():
        preset, specs = find_preset(name), studies(name)
        lanes = [len(spec.lattice) * len(spec.seeds) for spec in specs]
        steps = sum(n * spec.task.steps for n, spec in zip(lanes, specs, strict=True))
        command = "transfer" if name == "transfer-mini" else "compare"
        wanted = [preset.restates, preset.claim, f"in all {sum(lanes):,} lanes, {steps:,} lane-steps",
                  f"run lrwd-sweep {command} --preset {name}", "time about a minute",
                  *(spec.formula for spec in specs)]  # fmt: skip
        page = PresetPage(preset, name, specs, "about a minute")
        for encoding in ("utf-8", "ascii"):
            text = drawn(page, 80, encoding) + drawn(PresetList([preset]), 80, encoding)
            assert max(map(cell_len, text.splitlines())) <= 80, (name, encoding)
            assert not re.search(r"\\[xu]", text), (name, encoding)
        assert preset.restates.split(" of ")[0] in flat(drawn(PresetList([preset]))), name
        text = flat(drawn(page, 100))
        assert [part for part in wanted if part not in text] == [], name
        assert ("κ 0.1 where Π acts, else 1" in text) == any("κ" in spec.formula for spec in specs), name
        assert drawn(page).count("┤") == 6 * len({spec.task.timetable for spec in specs}), name
    hostile = replace(preset, name=HOSTILE, about=HOSTILE, restates=HOSTILE, claim=HOSTILE)
    assert not harmful(drawn(PresetPage(hostile, HOSTILE, [])) + drawn(PresetList([hostile])))


RESTARTS = """\
  1 |     #|:      ###|:              ####||::.
    |    ####|     ######|.           ###########|:.
eta |   |#####|    ########|.         ###############|:.
    |  |#######|   ##########|.       ###################|:.
    | |#########|  ############|.     ######################
  0 ||############.###############:...######################
                   ^                 ^
     0            16                36                    60"""


def test_schedule_is_drawn_as_stored_here_and_fits_any_console() -> None:
    timetable = Timetable(Schedule.RESTARTS, 60, 6, warmup=6, t_0=10, t_mult=2)
    lines = drawn(SchedulePlot(timetable), 60, "ascii").splitlines()
    assert "\n".join(line.rstrip() for line in lines).rstrip() == RESTARTS
    for width, each in product((1, 40, 120), Schedule):
        text = drawn(SchedulePlot(replace(timetable, schedule=each)), width)
        assert max(map(cell_len, text.splitlines())) <= min(width, 80), (width, each)
    paper = Timetable(Schedule.RESTARTS, 1800, 351, t_0=100, t_mult=2)
    assert caption(paper) == (
        "restarts over 1800 epochs, T_0 = 100, T_mult = 2, ▲ snapshots after 100, 300, 700, 1500"
    )
    cases = {0.0: "1 second", 99: "99 seconds", 101: "2 minutes", 7200: "2 hours", 86_400 * 30: "30 days"}
    assert {seconds: duration(seconds) for seconds in cases} == cases
