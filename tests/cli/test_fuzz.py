"""Hostile arguments and damaged files end with a documented exit code, in words, and write nothing else."""

import os
import re
import resource
import shutil
import signal
import string
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lrwd_sweep.cli import app, main
from tests.cli.conftest import STORE, TINY
from tests.data.formats import write_idx
from tests.store.sample import write_tools

USER_CODE = """
import torch
def net(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
def data(): return torch.ones(8, 4), torch.arange(8) % 2, torch.ones(4, 4), torch.arange(4) % 2
def loss(output, target): return torch.nn.functional.cross_entropy(output, target)
def broken(): raise OSError(28, "no space")
"""
PRESET = """like = "digits"
show = ["norm"]
training = {net = "mlp-norm", epochs = 2, schedule = "fixed"}
study = {seeds = 2}
variants = ["adamw", {optimizer = ["sgd"], lr = "2^-7:2^-1:4", wd = "0,2^-14:2^-10:3"}]
"""
SECRET, URL = "SECRET", "postgresql://user:SECRET@host/db"
NUMBERS = "0 1 2 -1 nan inf -inf 1e999 1e-400 1e308 0x10 1_0 ٣"
WORDS = "-- - %s {} {lr} = =cmd()"
PATHS = ". / .. /dev/full /dev/null no/such own.py own.toml runs.csv"
AXES = "1e-3 2^-8:2^-6 1e-4:1:9 1e-4:1e-1:10000 0,1e-3 1:0 1:2:3:4 , 1e-3,nan"
PLAIN = "digits mlp-norm adamw adam sgdw:lr-scaled lion cosine val_error json csv yes"
CODE = "./own.py:net ./own.py:data ./own.py:loss ./own.py:broken ./own.py:no ./no.py:net"
HOSTILE = (
    *f"{NUMBERS} {WORDS} {PATHS} {STORE} {AXES} {PLAIN} {CODE}".split(),
    *("", " ", "é😀", "\x1b[31mred", "a\nb", "a" * 10_000, "\udcff", "9" * 400, "a" * 300),
)
LIKELY = {  # values of options
    "--lr": AXES,
    "--wd": AXES,
    "--optimizer": "adamw adam sgdw:lr-scaled lion:normalized",
    "--net": f"mlp resnet20 gpt torchvision:resnet18 {CODE}",
    "--data": f"digits mnist text:own.toml text-bytes:own.py folder:runs@8 python-docs {CODE}",
    "--preset": "digits fig2-mini own.toml",
    "--storage": f"{STORE} new.db {URL} sqlite:///new.db sqlite+x://u:{SECRET}@/x user:{SECRET}@host/db",
    "--format": "json csv junit html markdown github optuna wandb paths mlflow",
    "--figure": "a.svg a.png a.pdf",
    "--metric": "val_loss val_error val_accuracy loss",
    "--over": "epochs=1,2 batch-size=8,16 width=4,8 train-fraction=0.5,1 epochs=2",
    "--head": "127.0.0.1:1 no.such.host:6379",
    "--device": "nowhere cuda:9",
}
GOOD = {option: words.split() for option, words in LIKELY.items()}
GOOD["--run"] = ["true {lr} {weight_decay}", "python x.py {lr} {weight_decay} {seed} {out}"]
IMPORTED = "--study-name imported -o adamw:lr-scaled"
COLUMNS = "--metric val_loss --columns lr=learning_rate,value=val_loss"
IMPORT = f"runs.csv {IMPORTED} {COLUMNS}"
POSITIONAL = {  # likely arguments
    **{command: [""] for command in ("grid", "tpe", "verify", "bench")},
    "convert": ["--optimizer adamw --lr 1e-3 --wd 0.05", "-o sgd --lr 1 --wd 1"],
    "compare": ["adam adamw", "sgdw:lr-scaled sgdp lion"],
    "report": ["imported", "digits-mlp-norm-adam-cosine-2ep-b64 digits-mlp-norm-adamw-cosine-2ep-b64"],
    "preset": ["digits", "own.toml"],
    "transfer": ["", "--over epochs=1,2"],
    "worker": ["--head 127.0.0.1:1", "--head user:SECRET@host:1"],
    "docs": ["clusters", "no"],
    "study": ["imported", IMPORT, f"{URL} {IMPORTED}", f"optuna.db {IMPORTED}", f"new.db {STORE}"],
}
LEFT_OUT = {"--open", "--watch", "--download", "--install-completion", "--show-completion"}  # act outside
ENDS = {  # what keeps a command from training or measuring for long; a later option may still be invalid
    **dict.fromkeys(("grid", "compare", "tpe", "transfer"), ("--dry-run",)),
    "verify": ("--device", "nowhere"),
    "bench": ("--scaling", "--overhead"),
}
TEXTS = "nan -1 1e999 null true {} [] lr 0 1e-400 ../x 1_0 2026-01-01 COMPLETE { ] = , - ; [[variants]] é"
BINARY = (b"\0", b"\xff\xfe", b"\n", b"\r", b"\x80\x04N.", b'"', b"'" * 3, b"\x1b[31m")
PAYLOADS = (*map(str.encode, TEXTS.split()), *BINARY, b"9" * 400, b"[" * 100_000, b"a" * 10_000)
CODES = {0, 1, 2, 3, 4}
EXAMPLES = 60 if settings().derandomize else 2_000  # in the slow run
TAKEN = {STORE, f"{STORE}-journal", f"{STORE}.packs", "lrwd-runs"}  # places of the default store


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("origin")
    write_tools(root)
    (root / "own.py").write_text(USER_CODE)
    (root / "own.toml").write_text(PRESET)
    raw = root / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, shape in (("images-idx3", (9, 28, 28)), ("labels-idx1", (9,))):
        for split in ("train", "t10k"):
            write_idx(raw / f"{split}-{name}-ubyte", torch.zeros(shape, dtype=torch.uint8).numpy())
    for command in (("compare", "adam", "adamw", *TINY), ("study", "import", *IMPORT.split())):
        assert ended(root, *command)[0] == 0, command
    return root


def ended(folder: Path, *arguments: str) -> tuple[int, str, str, int]:
    """Run a command in a fork of this process; return exit code, stdout, stderr and KiB of memory."""
    streams = [folder / ".out", folder / ".err"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forks beside threads
        child = os.fork()
    if child == 0:
        code: Any = 99
        try:
            os.chdir(folder)
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
            for number, path in ((0, os.devnull), (1, streams[0]), (2, streams[1])):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["lrwd-sweep", *arguments]
            main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    out, err = (path.read_text(errors="replace") for path in streams)
    for path in streams:
        path.unlink()
    return os.waitstatus_to_exitcode(status), out, err, usage.ru_maxrss


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if "__pycache__" not in path.parts}


def arguments_of(data: st.DataObject) -> list[str]:
    """Draw a command with some of its own options, their values likely or hostile."""
    command: Any = typer.main.get_command(app.app)
    found: list[str] = []
    known = tuple(POSITIONAL)
    while known:
        found.append(data.draw(st.sampled_from(known)))
        command = command.commands[found[-1]]
        known = tuple(sorted(getattr(command, "commands", ())))
    found += ENDS.get(found[0], ())
    some = st.sampled_from(HOSTILE) | st.text(string.printable, max_size=20)
    likely = st.sampled_from(["", *POSITIONAL[found[0]]]).map(str.split)
    found += data.draw(likely | st.lists(some, max_size=2))
    options = sorted(
        (name, bool(getattr(option, "is_flag", False)))
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("-") and name not in LEFT_OUT
    )
    hostile = 0
    chosen = st.lists(st.sampled_from(options), max_size=5, unique=True) if options else st.just([])
    for option, flag in data.draw(chosen):
        found.append(option)
        if not flag:
            values = GOOD.get(option, ["0", "1", "2"])
            one_fault = not hostile and data.draw(st.booleans())
            found.append(data.draw(some if one_fault else st.sampled_from(values)))
            hostile += one_fault
    return found


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    """Draw a file with up to four faults."""
    for _ in range(data.draw(st.integers(1, 4))):
        found = re.finditer(rb"[^\s,:=\"'{}\[\]\0]+|.", whole, re.DOTALL)
        tokens = [token.span() for token in found] or [(0, 0)]
        start, end = tokens[int(data.draw(st.floats(0, 1, exclude_max=True)) * len(tokens))]
        double = whole[start : end + 99]
        payload = data.draw(st.sampled_from((b"", double, *PAYLOADS)) | st.binary(max_size=8))
        rest = data.draw(st.sampled_from((start, end, len(whole))))  # inserted, replaced, or cut off there
        whole = whole[:start] + payload + whole[rest:]
    return whole


def files_of(data: st.DataObject, work: Path) -> list[str]:
    """Damage a file; return a command that reads it."""
    tiny = "--lr 1e-3 --wd 0 --epochs 1 --seeds 1 --dry-run"
    kinds = {
        "own.toml": ("grid --preset own.toml --dry-run", f"grid --data text:own.toml --net gpt {tiny}"),
        "data/MNIST/raw/train-images-idx3-ubyte": ("grid --data mnist --data-dir data",),
        "own.py": (f"grid --data ./own.py:data --net ./own.py:net {tiny}",),
        "": (f"study import SOURCE {IMPORTED}",),
    }
    path = data.draw(st.sampled_from(sorted(kinds)))
    words = data.draw(st.sampled_from(kinds[path])).split()
    if not path:
        every = [one.relative_to(work) for one in sorted(work.rglob("*")) if one.is_file()]
        runs = [one for one in every if one.suffix != ".py" and "data" not in one.parts and one.name != STORE]
        path = str(data.draw(st.sampled_from(runs)))
        words[2] = path.split("/")[0] if "mlruns" in path else path
        further = ("--take best", "--minimize", "--by depth", "--where lr=0.1", "--steps 9", COLUMNS)
        words += " ".join(data.draw(st.lists(st.sampled_from(further), max_size=3, unique=True))).split()
    (work / path).write_bytes(damaged(data, (work / path).read_bytes()))
    return words


@given(data=st.data())
@settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
def test_hostile_input_ends_in_words(origin: Path, tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "fuzz"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(origin, root / "work")
    arguments = arguments_of(data) if data.draw(st.booleans()) else files_of(data, root / "work")
    before = files(root)
    code, out, err, memory = ended(root / "work", *arguments)
    shown = f"lrwd-sweep {arguments!r}: exit code {code}\n{out[-2000:]}\n{err[-2000:]}"
    assert code in CODES, shown
    assert code != 1 or arguments[0] == "report", shown
    for fault in ("Traceback", "fault of lrwd-sweep", SECRET):
        assert fault not in out + err, f"{fault}: {shown}"
    assert not set(out + err) & ({*map(chr, range(32))} - {"\n", "\t", "\r"}), shown
    if code > 1:
        assert re.search(r"lrwd-sweep: .*\S", err), shown
        assert len(err) < 5_000, shown
    assert memory < 1 << 20, f"{memory} KiB: {shown}"
    named = " ".join(arguments)
    for path in files(root) - before:
        place = path.relative_to(root / "work") if path.is_relative_to(root / "work") else path
        assert place.parts[0] in TAKEN or place.parts[0].removesuffix("-journal") in named, f"{path}: {shown}"
