"""`preset`: what there is to run, before it runs."""

import json
from pathlib import Path

import pytest

from lrwd_sweep.engine.cost import Speed
from lrwd_sweep.errors import DeviceError, arg
from lrwd_sweep.spec.preset import preset_names
from tests.cli.conftest import Run


def test_presets_are_shown_without_data_or_a_store(run: Run, tmp_path: Path) -> None:
    listed = json.loads(run("preset", "list", "--format", "json").out)["presets"]
    assert {*preset_names()} <= {*run("preset", "list").out.split()}
    assert [preset["name"] for preset in listed] == preset_names()
    for preset in listed:
        name = preset["name"]
        shown = json.loads(run("preset", "show", name, "--format", "json").out)["preset"]
        assert {key: shown[key] for key in preset} == preset
        assert len({study["study_name"] for study in shown["studies"]}) == len(preset["optimizers"]), name
        found = run("preset", "show", name, "--no-estimate")
        assert (found.code, found.err, "\x1b" in found.out) == (0, "", False), name
        command = "transfer" if name == "transfer-mini" else "compare"
        assert f"lrwd-sweep {command} --preset {name}" in found.out, name
    assert not list(tmp_path.iterdir())


def test_show_reads_a_file_and_estimates_the_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my own.toml").write_text('like = "digits"\nabout = "red \\u001b[31m\\nline"\n')
    found = run("preset", "show", "my own.toml", "--no-estimate")
    assert found.code == 0
    assert found.out.startswith("my own: red \\x1b[31m\\nline\n")
    assert "compare --preset 'my own.toml'" in found.out
    speed = Speed(step=3600.0, sample=0.0, whole=False)
    monkeypatch.setattr("lrwd_sweep.runner.execution.measure", lambda *_: speed)
    words = " ".join(run("preset", "show", "digits").out.split())
    assert "years on this machine as busy as it is now, extrapolated from one network" in words

    def without_room(*_: object) -> Speed:
        raise DeviceError(f"no room; choose {arg('device', 'cpu')}")

    monkeypatch.setattr("lrwd_sweep.runner.execution.measure", without_room)
    assert "unknown: no room; choose --device cpu" in run("preset", "show", "digits").out
