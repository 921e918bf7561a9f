"""Options of networks: one set of values in every spelling, and bad ones refused in one line."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.spec.net_options import complete_options, options_text, parse_options, said_options
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises

NAMES = st.from_regex(r"\A[a-z_][a-z0-9_]{0,8}\Z")
PLAIN = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.dictionaries(NAMES, PLAIN | st.lists(PLAIN, max_size=3), min_size=1, max_size=3))
def test_options_are_read_back_as_they_are_said(options: dict[str, Any]) -> None:
    stored = options_text(options)
    assert parse_options(said_options(stored)) == json.loads(stored) == options


def test_options_outweigh_those_of_a_preset_one_by_one() -> None:
    task = Task(net="./my.py:Net", net_options=options_text({"width": 3, "act": "relu"}))
    (name, text), *_ = Request.of(net_options="width=8").overrides
    assert json.loads(task.changed(**{name: text}).net_options) == {"width": 8, "act": "relu"}
    assert task.changed(net="./my.py:Other", net_options=text).net_options == text == '{"width": 8}'


def test_bad_options_are_refused_in_one_line() -> None:
    for text in ("width", "width=", "=3", ""):
        assert_raises("is not options; write layers=2,width=32, or JSON", parse_options, text)
    assert_raises("is not JSON", parse_options, "{width: 3}")
    for net, options, complaint in (
        ("cnn", "width=3", "'width=3' has no effect on cnn; it is for mlp-norm, mlp, embed-norm, gpt"),
        ("embed-norm", "scale=0.5", "net_options='scale=0.5' is not a whole number from 1 to"),
        ("mlp", "width=0", "net_options='width=0' is not a whole number from 1 to"),
        ("gpt", "widht=3", "unknown option of gpt 'widht'; did you mean width?"),
        ("gpt", "layers=true", "net_options='layers=true' is not a whole number"),
        ("gpt", "tie=1", "net_options='tie=1' is neither true nor false"),
        ("gpt", "width=30,heads=4", "makes 4 heads of width 30, which does not divide"),
    ):
        assert_raises(re.escape(complaint), complete_options, net, options_text(parse_options(options)))
