"""Start Python processes for measurements that import the same libraries as this one.

`python -m` puts the current directory first, where any file may have a library's name, and so does a path on
which the folder of user code is first by now. A new process starts with its own path, followed by the one of
this process, and takes over the latter once its libraries are imported.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

_START = (
    "import json, sys; sys.path += json.loads(sys.argv[1]); "
    "from lrwd_sweep.runner.interpreter import run; run(*sys.argv[1:])"
)
_HERE = str(Path(__file__).parents[2])

_path: list[str] = []  # of the process that started this one


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of a process that calls `main(*arguments)` of a module."""
    path = [folder for folder in sys.path if isinstance(folder, str)]
    return [sys.executable, "-P", "-c", _START, json.dumps([*path, _HERE]), module, *arguments]


def run(path: str, module: str, *arguments: str) -> None:
    """Run the module that such a command line names."""
    _path[:] = json.loads(path)
    found = import_module(module)
    sys.argv = [str(found.__file__), *arguments]  # as `python -m` has it
    found.main(*arguments)


def take_path() -> None:
    """Search for modules in the folders of the process that started this one."""
    sys.path[:] = _path
