"""Presets: every one that comes with the package makes sense, and a faulty one is refused in one line."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.optimizer import Optimizer, optimizer_names
from lrwd_sweep.preset import DEFAULT, FOLDER, find_preset, preset_names, read_preset
from lrwd_sweep.spec import Kind, StudySpec, Training

PROJECT = Path(__file__).parents[1]


def refusal(tmp_path: Path, text: str) -> str:
    """The line that refuses a preset file of this text."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_preset(path)
    line = str(caught.value)
    assert line.startswith(f"preset '{path}'")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_whole(name: str) -> None:
    preset = find_preset(name)
    assert preset.name == name
    assert preset.about
    for optimizer in preset.variants:
        lattice = preset.lattice(optimizer)
        StudySpec(Kind.GRID, optimizer, lattice, tuple(range(preset.seeds)), preset.metric, preset.training)


def test_the_default_preset_has_axes_for_every_optimizer() -> None:
    preset = find_preset(DEFAULT)
    for name in optimizer_names():
        lattice = preset.lattice(Optimizer.parse(name))
        assert (len(lattice.lr), len(lattice.weight_decay)) == (11, 11)


def test_a_preset_that_says_nothing_is_the_default_task(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    preset = read_preset(path)
    assert (preset.name, preset.training, preset.seeds, preset.metric) == ("empty", Training(), 3, "val_loss")
    with pytest.raises(UsageError, match=r"no axes for adamw; give --lr and --wd$"):
        preset.lattice(Optimizer.parse("adamw"))


def test_axes_are_found_by_any_spelling_of_their_optimizer(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[axes."adamw:independent"]\nlr = "1e-3,1e-2"\nwd = "0,0.1,0.2"\n')
    lattice = read_preset(path).lattice(Optimizer.parse("adamw"))
    assert (lattice.lr, lattice.weight_decay) == ((0.001, 0.01), (0.0, 0.1, 0.2))


def test_an_unknown_preset_suggests_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="unknown preset 'digist'; did you mean digits"):
        find_preset("digist")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("variant = []", "unknown key 'variant'; did you mean variants?"),
        ("[training]\nlearning_rate = 1", "unknown key of [training] 'learning_rate'; known: "),
        ("[training]\nbatchsize = 1", "unknown key of [training] 'batchsize'; did you mean batch_size?"),
        ("[study]\nseed = 1", "unknown key of [study] 'seed'; did you mean seeds?"),
        (
            "[axes.adam]\nlr = '1,2'\nwd = '1,2'\nweight_decay = '1,2'",
            "unknown key of [axes.adam] 'weight_dec",
        ),
        ("[axes.adamm]\nlr = '1,2'\nwd = '1,2'", "unknown optimizer 'adamm'; did you mean adam or adamw?"),
        ("variants = ['adamm']", "unknown optimizer 'adamm'; did you mean adam or adamw?"),
        ("[training]\nnet = 'mpl'", "unknown network 'mpl'; did you mean mlp"),
        ("[study]\nmetric = 'val_los'", "unknown metric 'val_los'; did you mean val_loss"),
    ],
)
def test_an_unknown_name_in_a_preset_names_the_near_ones(tmp_path: Path, text: str, part: str) -> None:
    assert part in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("about = 3", "about 3 is not text"),
        ("variants = 'adam'", "variants 'adam' is not a list of names"),
        ("variants = [3]", "variants [3] is not a list of names"),
        ("training = 3", "'training' is not a table; write [training]"),
        ("axes = 3", "'axes' is not a table; write [axes]"),
        ("[axes]\nadam = 3", "'adam' is not a table; write [axes.adam]"),
        ("[axes.adam]\nlr = '1,2'", "[axes.adam] needs wd as text"),
        ("[axes.adam]\nlr = 0.1\nwd = '1,2'", "[axes.adam] needs lr as text"),
        ("[axes.adam]\nlr = '0.1'\nwd = '1,2'", "'0.1' is a single value"),
        (
            "[axes.adamw]\nlr = '1,2'\nwd = '1,2'\n[axes.'adamw:independent']\nlr = '1,2'\nwd = '1,2'",
            "[axes.adamw:independent] is adamw again",
        ),
        ("[training]\nnet = ['mlp']", "net ['mlp'] is not text"),
        ("[training]\nschedule = {}", "schedule {} is not text"),
        ("[training]\nepochs = 'many'", "'many' is not a whole number"),
        ("[training]\nepochs = true", "True is not a whole number"),
        ("[training]\nbatch_size = 401", "401 is larger than the training set"),
        ("[training]\nmomentum = 1.0", "momentum 1.0 is out of range"),
        ("[training]\neps = nan", "eps nan is out of range"),
        ("[study]\nseeds = 0", "seeds 0 is not a whole number"),
        ("[study]\nseeds = 1e3", "seeds 1000.0 is not a whole number"),
        ("[study]\nseeds = 1000000000000", "is not a whole number from 1 to"),
        ("[study]\nmetric = []", "metric [] is not text"),
        ("about = ", "is not TOML"),
        (f"about = {'[' * 5000}", "is not TOML"),
    ],
)
def test_a_wrong_value_in_a_preset_is_one_clear_line(tmp_path: Path, text: str, part: str) -> None:
    assert part in refusal(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not TOML"):
        read_preset(path)
    with pytest.raises(UsageError, match="name a preset or a TOML file"):
        read_preset(tmp_path)


def test_the_build_takes_the_presets_into_the_wheel() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"presets": "lrwd_sweep/presets"}
    assert (PROJECT / "presets").resolve() == FOLDER.resolve()


@pytest.mark.slow
def test_the_wheel_contains_the_presets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", str(PROJECT), "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"lrwd_sweep/presets/{name}.toml" for name in preset_names()} <= names
