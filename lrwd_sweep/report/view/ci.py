"""The report for CI and code review: markdown, JUnit XML, annotations of GitHub; and gates in words."""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from xml.etree import ElementTree as ET

from lrwd_sweep.report.answer import Line, Topic, answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view import tables
from lrwd_sweep.report.view.notation import UNICODE, axis_labels, counted, decay_labels, decay_symbol, plain
from lrwd_sweep.report.view.pictures import Picture
from lrwd_sweep.report.view.tables import NOTHING, Row, snippet, title
from lrwd_sweep.report.view.tiles import Mark, Numbers, Scale, Tile, Tiles, lacking, seeds_of
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import Surface

GATE_HEAD = ("gate", "limit", "study", "value", "result", "basis")
_NAMED = 3  # failed gates in a headline
_ANNOTATED = (Topic.VERDICT, Topic.DIFFERENCE, Topic.DIFFERENCES)  # lines of the answer
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")  # without zone, as the schema has it
# GitHub accepts 65,536 characters for a comment (and 1 MiB for a step's summary).
MOST_CHARACTERS = 65_000
LEFT_OUT = "*(a part was left out here: it does not fit; html and json hold everything)*"
CUT = "*(cut here: the rest does not fit; html and json hold everything)*"
_SPECIAL = re.compile(r"([\\`*_\[\]#~|$])")
_FENCE = re.compile("`{3,}")


def gate_rows(outcomes: Sequence[GateOutcome], results: Sequence[Result]) -> list[Row]:
    """List one row per gate and study, in the columns of GATE_HEAD."""
    return [
        (
            outcome.gate,
            _scalar(outcome.limit),
            _study_title(outcome, results),
            gate_value(outcome),
            "passed" if outcome.passed else "FAILED",
            plain(outcome.reason) or NOTHING,
        )
        for outcome in outcomes
    ]


def gate_sentence(outcome: GateOutcome) -> str:
    """Write `gate max-best failed for adamw: 0.146, limit 0.14 (val_loss, standard error 0.0004)`."""
    how = "passed" if outcome.passed else "failed"
    reason = f" ({outcome.reason})" if outcome.reason else ""
    found = f"{gate_value(outcome)}, limit {_scalar(outcome.limit)}{reason}"
    return plain(f"gate {outcome.gate} {how} for {outcome.study}: {found}")


def gate_headline(outcomes: Sequence[GateOutcome], results: Sequence[Result]) -> str:
    """Write `1 of 4 gates failed: max-best 0.146 > 0.14 (adamw)`; empty without gates."""
    if not outcomes:
        return ""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    every = counted(len(outcomes), "gate")
    if not failed:
        return f"{len(outcomes)} of {every} passed"
    named = [f"{_failure(each)} ({_study_title(each, results)})" for each in failed[:_NAMED]]
    more = [f"{len(failed) - _NAMED} more"] * (len(failed) > _NAMED)
    return f"{len(failed)} of {every} failed: {'; '.join([*named, *more])}"


def _study_title(outcome: GateOutcome, results: Sequence[Result]) -> str:
    found = (title(result, results) for result in results if result.name == outcome.study)
    return next(found, plain(outcome.study))


def _failure(outcome: GateOutcome) -> str:
    """Write how a value misses its limit, as in `max-best 0.146 > 0.14`."""
    value, limit = outcome.value, outcome.limit
    if value is None:
        return f"{outcome.gate} undetermined"
    if isinstance(value, str) or isinstance(limit, str):
        return f"{outcome.gate} {plain(str(value))}, not {limit}"
    sign, misses = _comparison(outcome)
    if not misses(value, limit):  # it fails for another reason
        return f"{outcome.gate}: {plain(outcome.reason)}"
    shown = (f"{value:.{digits}g}" for digits in (3, 4, 5))
    short = next((text for text in shown if misses(float(text), limit)), gate_value(outcome))
    return f"{outcome.gate} {short} {sign} {_scalar(limit)}"


def gate_value(outcome: GateOutcome) -> str:
    """Write the value to six digits, or to all if six would hide on which side of the limit it lies."""
    value, limit = outcome.value, outcome.limit
    if value is None:
        return "undetermined"
    text = _scalar(value)
    if isinstance(value, str) or isinstance(limit, str):
        return text
    _, misses = _comparison(outcome)
    return text if misses(float(text), limit) is misses(value, limit) else repr(value)


def _comparison(outcome: GateOutcome) -> tuple[str, Callable[[float, float], bool]]:
    """Return the comparison that holds for a value beyond its limit."""
    return ("<", operator.lt) if outcome.gate.startswith("min-") else (">", operator.gt)


def _scalar(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def junit(results: Sequence[Result], outcomes: Sequence[GateOutcome] = ()) -> str:
    """Write the XML in the schema that Jenkins, GitLab and GitHub's reporters read.

    A study is a suite, a gate a case. A study without gates has one case, "reported", which passes: readers
    reject an empty suite. Control characters, which XML cannot hold, are shown as escapes. The name of the
    whole holds the gates' headline. A suite's timestamp is the time at which its study began, its time the
    time that training took; 0 for an import, and where an earlier version trained. A gate takes no time.
    """
    failed = sum(not outcome.passed for outcome in outcomes)
    suites = [_suite(result, [o for o in outcomes if o.study == result.name]) for result in results]
    cases = sum(int(suite.attrib["tests"]) for suite in suites)
    headline = gate_headline(outcomes, results)
    name = f"lrwd-sweep: {headline}" if headline else "lrwd-sweep"
    root = ET.Element("testsuites", _counts(name, cases, failed, sum(result.seconds for result in results)))
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counts(name: str, tests: int, failures: int, seconds: float) -> dict[str, str]:
    time = f"{seconds:.3f}".rstrip("0").rstrip(".")
    return {
        "name": plain(name), "tests": str(tests), "failures": str(failures), "errors": "0", "time": time,
    }  # fmt: skip


def _suite(result: Result, outcomes: Sequence[GateOutcome]) -> ET.Element:
    failures = sum(not outcome.passed for outcome in outcomes)
    counts = _counts(result.name, max(len(outcomes), 1), failures, result.seconds)
    suite = ET.Element("testsuite", counts | {"skipped": "0"})
    if began := _TIME.match(result.created):
        suite.set("timestamp", began[0])
    for outcome in outcomes:
        case, text = _case(suite, outcome.study, outcome.gate), gate_sentence(outcome)
        if outcome.passed:
            ET.SubElement(case, "system-out").text = text
        else:
            ET.SubElement(case, "failure", {"type": outcome.gate, "message": text}).text = text
    if not outcomes:
        _case(suite, result.name, "reported")
    verdict = f"{result.spec.optimizer}: {result.separability.verdict}"
    reason = result.separability.reason
    ET.SubElement(suite, "system-out").text = plain(f"{verdict} ({reason})" if reason else verdict)
    return suite


def _case(suite: ET.Element, study: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", {"classname": plain(study), "name": plain(name), "time": "0"})


def workflow_commands(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
) -> str:
    """Write commands of GitHub Actions, a line each: the gates' headline, an error per failed gate, notices.

    Notices are the gates that passed and the verdicts. GitHub shows the first ten of a kind per step.
    """
    lines = []
    if outcomes:
        kind = "notice" if all(outcome.passed for outcome in outcomes) else "error"
        lines.append(command(kind, "lrwd-sweep", gate_headline(outcomes, results)))
    for outcome in sorted(outcomes, key=lambda outcome: outcome.passed):
        where = f"{outcome.gate}: {_study_title(outcome, results)}"
        lines.append(command("notice" if outcome.passed else "error", where, gate_sentence(outcome)))
    for line in answer(results, comparisons):
        if line.topic in _ANNOTATED:
            parts = line.parts[:3] if line.topic is Topic.VERDICT else line.parts
            lines.append(command("notice", line.label, "; ".join(filter(None, parts))))
    return "\n".join(lines) + "\n"


def command(kind: str, title: str, message: str) -> str:
    """Write a workflow command whose title and message end nothing and begin nothing.

    >>> command("error", "a: 1, b", "50 %")
    '::error title=a%3A 1%2C b::50 %25'
    """
    return f"::{kind} title={_data(title).replace(':', '%3A').replace(',', '%2C')}::{_data(message)}"


def _data(text: str) -> str:
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def markdown(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
    shown: Sequence[Picture] = (),
    *,
    full: bool = False,
) -> str:
    """Write the whole report; the heatmaps of further pictures follow as tables.

    Answer and gates come first, so that no cut loses them. `full` adds the parameters that decay.
    """
    blocks = ["\n".join(map(_answered, answer(results, comparisons)))]
    if outcomes:
        blocks.insert(0, f"**{escaped(gate_headline(outcomes, results))}**")
        blocks += ["## Gates", pipe_table(GATE_HEAD, _escaped(gate_rows(outcomes, results)))]
    for result in results:
        blocks += _study(result, results, full)
    for compared in comparisons:
        a, b = title(compared.a, results), title(compared.b, results)
        rows = _escaped(tables.comparison_rows(compared))
        blocks += [f"## {code(b)} against {code(a)}", escaped(compared.comparison.verdict)]
        blocks.append(pipe_table(["paired, by seed", "value [90 % interval]"], rows))
    for picture in shown:
        blocks += _picture(picture)
    return fitted("\n\n".join(blocks) + "\n")


def _answered(line: Line) -> str:
    """Write one line of the answer as an item of a list, its code as a code span."""
    parts = line.parts[:3] if line.topic is Topic.VERDICT else line.parts
    texts = [code(line.code_line)] * bool(line.code) + [escaped(part) for part in parts if part]
    return f"- **{escaped(line.label)}**: {' · '.join(texts)}"


def code(text: str) -> str:
    """Write `text` as a code span, which disables markup, HTML and @mentions."""
    harmless = plain(text)
    fence = _fence(harmless, 1)
    pad = " " if len(fence) > 1 or not harmless.strip() else ""
    return f"{fence}{pad}{harmless}{pad}{fence}"


def code_block(text: str, language: str) -> str:
    """Write lines of code in a fence that no run of backticks in them can close."""
    harmless = "\n".join(map(plain, text.splitlines()))
    fence = _fence(harmless, 3)
    return f"{fence}{language}\n{harmless}\n{fence}"


def _fence(text: str, least: int) -> str:
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def escaped(text: str) -> str:
    """Escape `text` so that markdown, HTML and @mentions in it have no effect."""
    harmless = _SPECIAL.sub(r"\\\1", plain(text))
    return harmless.replace("&", "&amp;").replace("<", "&lt;").replace("@", "@<!-- -->")


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "---") -> str:
    """Write a table of entries that are escaped already."""
    lines = [head, ["---", *[align] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(rows: Iterable[Row]) -> list[Row]:
    return [tuple(map(escaped, row)) for row in rows]


def _study(result: Result, among: Sequence[Result], full: bool) -> list[str]:
    """Write one study's section; recommended cells are a block of Python, next steps blocks of shell."""
    best, measures = tables.best_rows([result]), tables.separability_rows([result])
    blocks = [
        f"## {code(title(result, among))}",
        f"{code(result.spec.formula)}  \nstudy {code(result.name)}: {escaped(tables.task_text(result))}",
        *([escaped(tables.tensors(result))] if full else []),
        pipe_table(["best cell", ""], _escaped(best)),
        pipe_table(["separability", "value [90 % interval]"], _escaped(measures)),
    ]
    if result.spec.is_search:
        head = ["best", *map(escaped, tables.candidate_head(result))]
        blocks.append(pipe_table(head, _escaped(tables.candidate_rows(result))))
    blocks += _lattice(result.surface, result.separability)
    found = recommendations(result, among)
    if found.cells:
        blocks.append(code_block(snippet(result, found), "python"))
    if found.why_not_forgiving:
        blocks.append(f"most forgiving cell: {escaped(found.why_not_forgiving)}")
    for advice in found.next:
        blocks.append(f"**Next**: {escaped(advice.why)}")
        if advice.command_line is not None:
            blocks.append(code_block(advice.command_line, "sh"))
    return blocks


def _picture(picture: Picture) -> list[str]:
    """Write the section of a further picture."""
    blocks = [f"## {code(picture.name)}", escaped(picture.about)]
    for _, heatmap in picture.heatmaps:
        blocks.append(f"### {code(heatmap.title)}")
        blocks += _lattice(heatmap.surface, heatmap.separability, ranked=heatmap.ranked)
    return [block for block in blocks if block] + list(map(escaped, picture.notes))


def _lattice(surface: Surface, separability: Separability | None, *, ranked: bool = True) -> list[str]:
    """Write the lattice as a table, numbers to the digits that resolve the basin, and its legend."""
    tiles = Tiles.of(surface, separability, ranked=ranked)
    scale = Scale.of([surface], ranked=ranked)
    numbers = Numbers(12, max(scale.decimals, 0) if scale else 0)
    rows = [
        [label, *(_entry(tile, numbers) for tile in row)]
        for label, row in zip(axis_labels(tiles.row_values, UNICODE), tiles.rows, strict=True)
    ]
    some, every = lacking([surface])
    so_far = f"~ {some}, " * bool(surface.partial.any())
    legend = (
        f"{escaped(surface.metric)}, {seeds_of([surface])}; {so_far}"
        f"{'★ best, ○ ten best, **bold** best of its row, ' * ranked}× diverged, ! failed, · {every}"
    )
    columns = decay_labels(surface, tiles.column_values, UNICODE)
    head = [f"α ↑, {escaped(decay_symbol(surface))} →", *columns]
    return [pipe_table(head, rows, align="--:"), legend]


def _entry(tile: Tile, numbers: Numbers) -> str:
    sign = UNICODE.sign(tile.mark)
    if tile.value is None:
        return sign
    number = numbers.text(tile.value)
    number = f"**{number}**" if tile.best_of_row else number
    return f"{number} {sign}" if tile.mark in (Mark.BEST, Mark.TOP) else number + sign


def fitted(text: str, most: int = MOST_CHARACTERS) -> str:
    """Shorten markdown to at most `most` characters.

    The longest blocks, which are lattices of many cells, are replaced first, each by one line that says so.
    If the text is still too long, its end is cut off at a block, with a line that says so.
    """
    if len(text) <= most:
        return text
    blocks = _blocks(text.rstrip("\n"))
    length = len(text)
    for k in sorted(range(len(blocks)), key=lambda k: len(blocks[k]), reverse=True):
        if length <= most or len(blocks[k]) <= len(LEFT_OUT):
            break
        length -= len(blocks[k]) - len(LEFT_OUT)
        blocks[k] = LEFT_OUT
    if length <= most:
        return "\n\n".join(blocks) + "\n"
    room, kept = most - len(CUT) - 1, []
    for block in blocks:
        room -= len(block) + 2
        if room < 0:
            break
        kept.append(block)
    return "\n\n".join([*kept, CUT]) + "\n"


def _blocks(text: str) -> list[str]:
    """Split at blank lines, but keep a code block with blank lines whole."""
    blocks: list[str] = []
    for part in text.split("\n\n"):
        fence = _FENCE.match(blocks[-1]) if blocks else None
        if fence and not blocks[-1].endswith("\n" + fence[0]):
            blocks[-1] += "\n\n" + part
        else:
            blocks.append(part)
    return blocks
