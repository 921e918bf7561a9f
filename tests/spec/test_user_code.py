"""User code is imported by name, hashed with what it imports, and refused in one line if it is wrong."""

import importlib
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.user_code import canonical, find, is_user_code, short
from tests.refusal import assert_raises

names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
paths = st.lists(names | st.sampled_from([".", ".."]), min_size=1, max_size=4).map("/".join)


@pytest.fixture(autouse=True)
def _place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder; forget what is imported from it."""
    monkeypatch.setattr(user_code, "_helper_paths", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HOME", f"{folder}/home")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _written(files: Mapping[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


@given(paths, names, names)
def test_a_path_has_one_canonical_form(path: str, file: str, name: str) -> None:
    found = canonical("net", f"{path}/{file}.py:{name}")
    assert found == canonical("net", found)
    assert is_user_code(found)
    assert Path(found.rpartition(":")[0]).resolve() == Path(f"{path}/{file}.py").resolve()
    assert short(found) == f"{file}-{name}"


def test_incomplete_names_are_refused_and_other_names_unchanged() -> None:
    for name in ("my_net.py", "./my.py:", "./my.py:Net()", "my net:Net", ":Net", "a.b:c d", "x\x1b.py:Net"):
        assert_raises(r"write package.module:NAME or ./file.py:NAME", canonical, "net", name)
    for name in ("resnet20", "torchvision:resnet18", "folder:mine/x.py@8"):
        assert canonical("net", name) == name == short(name)
        assert not is_user_code(name)


def test_a_file_is_imported_with_its_neighbours_and_tells_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    made = "from beside_it import VALUE\nprint('loading')\nclass Made:\n    number = lambda: VALUE\n"
    _written({"sub/beside_it.py": "VALUE = 3\n", "sub/mine.py": made})
    _written({"random.py": "def make(): return 4\n", "home/mine.py": "def make(): return 5\n"})
    assert find("net", "./sub/mine.py:Made.number")() == 3
    assert tuple(capsys.readouterr()) == ("", "loading\n")
    assert find("net", "./random.py:make")() == 4
    assert sys.modules["random"] is random  # the standard one
    name = canonical("net", "~/mine.py:make")
    assert name == f"{os.getcwd()}/home/mine.py:make"
    assert find("net", name)() == 5


FILES = {
    "mine.py": "import random, json as js\nfrom near import VALUE\ndef make(): return VALUE\n",
    "near.py": "import far.deep.below\nfrom lrwd_sweep.errors import LrwdError\nVALUE = 1\n",
    "far/deep/__init__.py": "ABOUT = 'deep'\n",
    "far/deep/below.py": "def late():\n    from ..beside import thing\n",
    "far/beside.py": "from . import further\nfrom json import loads\nthing = 1\n",
    "far/further.py": "import mine, far.absent, absent\n",
    **dict.fromkeys(("far/__init__.py", "far/other.py", "unrelated.py"), ""),
}
HELPERS = ["far", "far.beside", "far.deep", "far.deep.below", "far.further", "near"]


def _found_again(name: str) -> user_code.UserCode:
    for module in ("mine", *HELPERS):
        sys.modules.pop(module, None)
    user_code._executed.clear()
    return find("net", name)


def test_digest_covers_the_users_modules_that_are_imported_anywhere() -> None:
    _written(FILES)
    far = ("far/deep/__init__.py", "far/deep/below.py", "far/beside.py", "far/further.py")
    for name in ("./mine.py:make", "mine:make"):
        first = _found_again(name)
        assert [helper.name for helper in first.helpers] == HELPERS
        assert first.digest == "83a4a731dd2a"  # stored studies have it
        for file in ("near.py", *far):
            Path(file).write_text(FILES[file] + "# changed\n")
            assert _found_again(name).digest != first.digest, file
            Path(file).write_text(FILES[file])
        for file in ("far/other.py", "unrelated.py"):
            Path(file).write_text("changed = True\n")
        assert _found_again(name).digest == first.digest


def test_helpers_are_found_on_the_path_but_libraries_are_no_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = f"{os.getcwd()}/lib/site-packages"
    _written({"nets/mine.py": "import of_a_library\nfrom common import thing\ndef make(): return 1\n"})
    empty = ("src/common/__init__.py", "src/common/thing.py", f"{installed}/of_a_library.py")
    _written(dict.fromkeys(empty, ""))
    monkeypatch.syspath_prepend(f"{os.getcwd()}/src")
    monkeypatch.syspath_prepend(installed)
    code = find("net", "./nets/mine.py:make")
    assert [helper.name for helper in code.helpers] == ["common", "common.thing"]


def test_a_module_that_changed_is_refused_until_it_is_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def assert_stale(file: str) -> None:
        stale = find("net", "net_of_mine:make").refuse_stale
        assert_raises(rf":make': '.*{file}\.py' has changed on disk", stale)

    def write(width: int) -> None:
        _written({"net_of_mine.py": f"from blocks_of_mine import body\ndef make(): return {width}\n"})

    monkeypatch.syspath_prepend(os.getcwd())
    _written({"blocks_of_mine.py": "def body(x): return x\n"})
    write(8)
    net = importlib.import_module("net_of_mine")  # as a notebook does, before `find` sees it
    time.sleep(0.02)  # ticks of a file system's clock
    for before, width in ((8, 16), (16, 160)):
        write(width)
        assert_stale("net_of_mine")
        assert find("net", "net_of_mine:make")() == before, "Python imports a module once"
        importlib.reload(net)
        code = find("net", "net_of_mine:make")
        code.refuse_stale()
        assert code() == width
    files = {"net_of_mine.py", "blocks_of_mine.py"}
    assert {Path(path).name for path in find("net", "net_of_mine:body").sources} == files
    _written({"blocks_of_mine.py": "def body(x): return x + 1\n"})
    assert_stale("blocks_of_mine")
    assert find("net", "net_of_mine:make").digest == code.digest
    importlib.reload(sys.modules["blocks_of_mine"])
    assert_stale("blocks_of_mine")  # until what imports it is reloaded too
    importlib.reload(net)
    find("net", "net_of_mine:make").refuse_stale()


def test_code_that_cannot_be_imported_or_told_apart_is_refused_in_one_line() -> None:
    for file, label in (("pkg/rel.py", "pkg.rel"), ("package/__init__.py", "package")):
        _written({f"{Path(file).parent}/__init__.py": "", f"{Path(file).parent}/near.py": "VALUE = 3"})
        _written({file: "from .near import VALUE\ndef make(): return VALUE\n"})
        assert_raises(rf"relative import.*; name it {re.escape(label)}:make", find, "net", f"./{file}:make")
        assert find("net", f"{label}:make")() == 3
    late = "def make():\n    import near\n"
    for folder, imports in (("one", "import near\ndef make(): return 1\n"), ("two", late)):
        _written({f"{folder}/{folder}.py": imports, f"{folder}/near.py": f"WHERE = {folder!r}\n"})
    for loaded in (True, False):
        assert find("net", "./one/one.py:make")() == 1
        if not loaded:
            del sys.modules["near"]
        clash = r"'near' from '.*two/near\.py', .* '.*one/near\.py'; rename"
        assert_raises(clash, find, "net", "./two/two.py:make")
    for source, name, complaint in (
        ("", "./absent.py:Net", "'./absent.py' cannot be read (no such file); paths begin at "),
        ("", "absent_package.nets:Net", "there is no module 'absent_package'; install it, or run this in"),
        ("def Nett(): pass", "./mine.py:Net", "unknown name in ./mine.py 'Net'; did you mean Nett?"),
        ("Net = 3", "./mine.py:Net", "net='./mine.py:Net' is of type int; name a function or a class"),
        ("import absent_thing", "./mine.py:Net", "No module named 'absent_thing' (mine.py"),
        ("def f(:", "./mine.py:Net", "cannot be imported: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import sys\nsys.exit(3)", "./mine.py:Net", "cannot be imported: SystemExit: 3 (mine.py, line 2)"),
    ):
        _written({"mine.py": source})
        assert_raises(re.escape(complaint), find, "net", name)


def test_a_function_gets_the_arguments_it_takes_and_its_exception_names_the_line() -> None:
    two = "def some(b, *, c=2): return b, c\ndef any_(**options): return options\n"
    _written({"mine.py": f"{two}def none(): return ()\n"})
    some, any_, none = (find("net", f"./mine.py:{name}") for name in ("some", "any_", "none"))
    offered = {"a": 1, "b": 2}
    assert some.arguments(offered, {"c": 3}) == {"b": 2, "c": 3}
    assert (any_.arguments(offered, {"c": 3}), none.arguments(offered, {})) == ({"c": 3}, {})
    assert_raises(r"unknown option of net='\./mine\.py:some' 'd'", some.arguments, offered, {"d": 3})
    assert_raises("wants 'b', which nothing gives", some.arguments, {}, {})
    _written({"outer.py": "from near import make\n", "near.py": "def other():\n    1/0\n\n\nmake = other\n"})
    assert_raises(r"division by zero \(near\.py, line 2\)$", find("net", "./outer.py:make"))
