"""A name says what to call, and is imported by nobody who does not ask; what goes wrong is one line."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.spec.own_code import canonical, find, is_own, short

names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
paths = st.lists(names | st.sampled_from([".", ".."]), min_size=1, max_size=4).map("/".join)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@given(paths, names, names)
def test_a_path_has_one_way_to_be_written(path: str, file: str, name: str) -> None:
    found = canonical("--net", f"{path}/{file}.py:{name}")
    assert found == canonical("--net", found)
    assert is_own(found)
    assert Path(found.rpartition(":")[0]).resolve() == Path(f"{path}/{file}.py").resolve()
    assert short(found) == f"{file}-{name}"


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _written({"home/mine.py": "def make(): return 1\n"})
    name = canonical("--net", "~/mine.py:make")
    assert name == f"{tmp_path}/home/mine.py:make"
    assert find("--net", name)() == 1


@pytest.mark.parametrize(
    "name",
    ["my_net.py", "./my_net.py:", "./my_net.py:Net()", "my net:Net", ":Net", "a.b:c d", "x\x1b.py:Net"],
)
def test_what_is_half_written_is_told_how(name: str) -> None:
    with pytest.raises(UsageError, match=r"write package.module:NAME or ./file.py:NAME"):
        canonical("--net", name)


@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "folder:mine/x.py@8"])
def test_other_names_are_left_alone(name: str) -> None:
    assert canonical("--net", name) == name == short(name)
    assert not is_own(name)


def test_a_file_is_imported_with_its_neighbours_and_says_what_it_prints_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "beside_it.py").write_text("VALUE = 3\n")
    (tmp_path / "sub" / "mine.py").write_text(
        "from beside_it import VALUE\nprint('loading')\nclass Made:\n    number = lambda: VALUE\n"
    )
    assert find("--net", "./sub/mine.py:Made.number")() == 3
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "loading\n")


def test_a_file_called_like_a_module_of_python_takes_nobodys_place(tmp_path: Path) -> None:
    import random

    (tmp_path / "random.py").write_text("def make():\n    return 'mine'\n")
    assert find("--net", "./random.py:make")() == "mine"
    assert sys.modules["random"] is random


def test_other_code_has_another_digest_and_is_what_runs(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    file.write_text("def make():\n    return 1\n")
    first = find("--net", "./changing.py:make")
    file.write_text("def make():\n    return 2\n")
    second = find("--net", "./changing.py:make")
    assert (first(), second()) == (1, 2)
    assert first.digest != second.digest
    file.write_text("def make():\n    return 1\n")
    assert find("--net", "./changing.py:make").digest == first.digest


def test_a_module_has_the_digest_of_what_was_imported(tmp_path: Path) -> None:
    (tmp_path / "pkg_of_mine").mkdir()
    (tmp_path / "pkg_of_mine" / "__init__.py").write_text("from pkg_of_mine.nets import make\n")
    nets = tmp_path / "pkg_of_mine" / "nets.py"
    nets.write_text("def make():\n    return 1\n")
    first = find("--net", "pkg_of_mine:make")
    assert {Path(path).name for path in first.sources} == {"__init__.py", "nets.py"}
    nets.write_text("def make():\n    return 2\n")
    again = find("--net", "pkg_of_mine:make")
    assert again() == 1  # Python imports a module once
    assert again.digest == first.digest


def _written(files: Mapping[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


FILES = {
    "mine.py": "import random, json as js\nfrom near import VALUE\ndef make(): return VALUE\n",
    "near.py": "import far.deep.below\nfrom lrwd_sweep.errors import LrwdError\nVALUE = 1\n",
    "far/__init__.py": "",
    "far/deep/__init__.py": "ABOUT = 'deep'\n",
    "far/deep/below.py": "def late():\n    from ..beside import thing\n",
    "far/beside.py": "from . import further\nfrom json import loads\nthing = 1\n",
    "far/further.py": "import mine, far.absent, absent\n",
    "far/other.py": "",
    "unrelated.py": "",
}


@pytest.mark.parametrize("name", ["./mine.py:make", "mine:make"])
def test_what_it_imports_of_ones_own_has_a_part_in_its_digest(name: str) -> None:
    _written(FILES)
    first = find("--net", name)
    helpers = ["far", "far.beside", "far.deep", "far.deep.below", "far.further", "near"]
    assert [helper.name for helper in first.helpers] == helpers
    assert find("--net", name).digest == first.digest
    for file in ("near.py", "far/deep/__init__.py", "far/deep/below.py", "far/beside.py", "far/further.py"):
        Path(file).write_text(FILES[file] + "# changed\n")
        assert find("--net", name).digest != first.digest, file
        Path(file).write_text(FILES[file])
    for file in ("far/other.py", "unrelated.py"):
        Path(file).write_text("changed = True\n")
    assert find("--net", name).digest == first.digest


def test_helpers_are_found_elsewhere_on_the_path_and_libraries_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "lib" / "site-packages"
    _written(
        {
            "nets/mine.py": "import of_a_library\nfrom common import thing\ndef make(): return 1\n",
            "src/common/__init__.py": "",
            "src/common/thing.py": "",
            f"{installed}/of_a_library.py": "",
        }
    )
    for folder in (tmp_path / "src", installed):
        monkeypatch.syspath_prepend(folder)
    code = find("--net", "./nets/mine.py:make")
    assert [helper.name for helper in code.helpers] == ["common", "common.thing"]


@pytest.mark.parametrize("name", ["./alone.py:make", "alone:make", "pkg_of_mine.alone:make"])
def test_without_helpers_the_digest_is_that_of_the_source(name: str) -> None:
    source = "import json\ndef make(): return 1\n"
    _written({"alone.py": source, "pkg_of_mine/__init__.py": "", "pkg_of_mine/alone.py": source})
    inner = hashlib.sha256(source.encode()).digest()
    assert find("--net", name).digest == hashlib.sha256(inner).hexdigest()[:12]


@pytest.mark.parametrize(
    ("file", "label"),
    [("pkg/rel.py", "pkg.rel"), ("outer/pkg/rel.py", "outer.pkg.rel"), ("pkg/__init__.py", "pkg")],
)
def test_a_relative_import_is_told_the_name_that_works(file: str, label: str) -> None:
    for package in Path(file).parents[:-1]:
        _written({f"{package}/__init__.py": ""})
    source = "from .near import VALUE\ndef make(): return VALUE\n"
    _written({file: source, f"{Path(file).parent}/near.py": "VALUE = 3"})
    with pytest.raises(UsageError, match=rf"relative import.*; name it {re.escape(label)}:make, in the fold"):
        find("--net", f"./{file}:make")
    assert find("--net", f"{label}:make")() == 3


def test_a_fault_in_a_helper_is_told_with_its_line(tmp_path: Path) -> None:
    _written({"mine.py": "from near import make\n", "near.py": "def other():\n    1/0\n\n\nmake = other\n"})
    with pytest.raises(UsageError, match=r"division by zero \(near\.py, line 2\)$"):
        find("--net", "./mine.py:make")()


def test_every_file_has_its_own_neighbours_though_they_share_a_name() -> None:
    for folder, value in (("one", 1), ("two", 22)):
        _written(
            {
                f"{folder}/mine_{value}.py": "from near.it import value\ndef make():\n    import near.late\n"
                "    return value(), near.late.VALUE\n",
                f"{folder}/near/__init__.py": "",
                f"{folder}/near/it.py": f"def value(): return {value}\n",
                f"{folder}/near/late.py": f"VALUE = {value}\n",
            }
        )
    one, two = (find("--net", name) for name in ("./one/mine_1.py:make", "./two/mine_22.py:make"))
    for _ in range(2):
        assert (one(), two()) == ((1, 1), (22, 22))
    assert sys.modules["near.it"].__file__ == f"{os.getcwd()}/one/near/it.py"
    for code in (one, two):
        code.refuse_stale()


def test_a_file_is_executed_again_with_a_neighbour_that_has_changed() -> None:
    _written({"mine.py": "import far\ndef make(): return far.VALUE\n", "far.py": "from near import VALUE\n"})
    found = []
    for value in (1, 22, 333, 1):
        Path("near.py").write_text(f"VALUE = {value}\n")
        code = find("--net", "./mine.py:make")
        code.refuse_stale()
        found.append(code.digest)
        assert code() == value
    assert find("--net", "./mine.py:make").thing is code.thing
    assert found[0] == found[3]
    assert len(set(found)) == 3


CODE = """
from dataclasses import dataclass
from functools import wraps

import blocks_of_mine
from blocks_of_mine import body

WIDTH = 8

def told(function):
    @wraps(function)
    def around(*arguments):
        return function(*arguments)
    return around

@dataclass
class Net:
    width: int = WIDTH

    @property
    def double(self):
        return {"a", "b"} and 2 * self.width

    @staticmethod
    @told
    def forward(x):
        # what it does
        class Inner:
            depth = 1
        return [x + 1 for _ in "ab" if Inner], body

def make():
    return Net()
"""


@pytest.fixture
def imported_before(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that a notebook has imported, with a helper, before anybody asked for it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(os.getcwd())
    _written({"net_of_mine.py": CODE, "blocks_of_mine.py": "def body(x):\n    return x\n"})
    importlib.import_module("net_of_mine")
    return Path("net_of_mine.py")


CHANGES = {
    "a method": ("and 2 * self", "and 3 * self"),
    "a decorated function": ("x + 1 for", "x + 2 for"),
    "a function": ("return Net()", "return Net(3)"),
    "a decorator": ("return function(*arguments)", "return function(*arguments), 1"),
    "a number": ("WIDTH = 8", "WIDTH = 16"),
    "a default": ("int = WIDTH", "int = WIDTH + 1"),
    "no Python any more": ("def make", "def def make"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("asked", [False, True])
def test_a_module_that_changed_since_it_was_imported_is_refused(
    change: str, asked: bool, imported_before: Path
) -> None:
    if asked:
        find("--net", "net_of_mine:make").refuse_stale()
    imported_before.write_text(CODE.replace(*CHANGES[change]))
    with pytest.raises(
        UsageError, match=r"net_of_mine:make: '.*net_of_mine\.py' has changed on disk since it "
    ):
        find("--net", "net_of_mine:make").refuse_stale()
    imported_before.write_text(CODE)
    find("--net", "net_of_mine:make").refuse_stale()


@pytest.mark.parametrize("asked", [False, True])
def test_other_comments_change_nothing(asked: bool, imported_before: Path) -> None:
    first = find("--net", "net_of_mine:make").digest if asked else ""
    imported_before.write_text('"""Mine."""\n\n# more of it\n' + CODE.replace("# what it does", "\n\n"))
    again = find("--net", "net_of_mine:make")
    again.refuse_stale()
    assert again.digest != first  # as on the command line


def test_what_was_imported_anew_is_not_refused(imported_before: Path) -> None:
    find("--net", "net_of_mine:make").refuse_stale()
    for width in (16, 160):
        imported_before.write_text(CODE.replace("WIDTH = 8", f"WIDTH = {width}"))
        importlib.reload(sys.modules["net_of_mine"])
        code = find("--net", "net_of_mine:make")
        code.refuse_stale()
        assert code().width == width


def test_a_helper_that_changed_is_refused_until_nothing_holds_what_it_was(imported_before: Path) -> None:
    helper = Path("blocks_of_mine.py")
    helper.write_text("def body(x):\n    return x + 1\n")
    for again in ([], ["blocks_of_mine"]):
        for name in again:
            importlib.reload(sys.modules[name])
        with pytest.raises(
            UsageError, match=r"blocks_of_mine\.py' has changed on disk since it was imported"
        ):
            find("--net", "net_of_mine:make").refuse_stale()
    importlib.reload(sys.modules["net_of_mine"])
    find("--net", "net_of_mine:make").refuse_stale()


@pytest.mark.parametrize(
    ("source", "name", "complaint"),
    [
        (
            None,
            "./absent.py:Net",
            "'./absent.py' cannot be read (No such file or directory); a path is looked",
        ),
        (None, "absent_package.nets:Net", "there is no module 'absent_package'; install it, or run this in"),
        ("def Nett(): pass", "./mine.py:Net", "unknown name in ./mine.py 'Net'; did you mean Nett?"),
        ("Net = 3", "./mine.py:Net", "--net ./mine.py:Net is of type int; name a function or a class"),
        (
            "x = 1\n1/0",
            "./mine.py:Net",
            "cannot be imported: ZeroDivisionError: division by zero (mine.py, line 2)",
        ),
        (
            "import absent_thing",
            "./mine.py:Net",
            "ModuleNotFoundError: No module named 'absent_thing' (mine.py",
        ),
        ("def f(:", "./mine.py:Net", "cannot be imported: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("raise BaseException(3)", "./mine.py:Net", "cannot be imported: BaseException: 3 (mine.py, line 1)"),
        ("import sys; sys.exit(3)", "./mine.py:Net", "cannot be imported: SystemExit: 3 (mine.py, line 1)"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    source: str | None, name: str, complaint: str, tmp_path: Path
) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    with pytest.raises(UsageError) as refused:
        find("--net", name)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_it_is_given_what_it_takes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def some(b, *, c=2): return b, c\ndef any_(**options): return options\ndef none(): return ()\n"
    )
    some, any_, none = (find("--net", f"./mine.py:{name}") for name in ("some", "any_", "none"))
    offered = {"a": 1, "b": 2}
    assert some.arguments(offered, {"c": 3}) == {"b": 2, "c": 3}
    assert any_.arguments(offered, {"c": 3}) == {"c": 3}
    assert none.arguments(offered, {}) == {}
    with pytest.raises(UnknownName, match=r"unknown option of --net \./mine\.py:some 'd'"):
        some.arguments(offered, {"d": 3})
    with pytest.raises(UsageError, match="wants 'b', which nothing gives"):
        some.arguments({}, {})
