"""Make the databases in this folder and the output that they gave.

`python tests/former/make.py [NAME...]` writes NAME.sqlite and NAME.json for the stores below. Do not run it
after the package has changed: the databases stand for what users of the earlier version have on disk.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent
STORE = "lrwd-sweep.db"

LATTICES = "compare adam adamw --lr 2^-6:2^-2 --wd 2^-10,2^-8,2^-6,2^-4,2^-2 --seeds 3 --epochs 4"
# SGD: unlike Adam, it does not amplify the rounding by which machines differ.
GRID = "grid --optimizer sgdw --lr 2^-8:2^-5 --wd 2^-10,2^-7,2^-4 --seeds 2 --epochs 6 --max-lanes 2"
TPE = "tpe --optimizer sgdw --lr 2^-5:2^-1 --wd 2^-9:2^-5 --seeds 2 --epochs 3"
USER = (
    "grid --preset mine.toml --optimizer adamw --no-decay-norm-bias --no-decay head "
    "--wd 0,2^-8,2^-4 --seeds 2"
)
SMALL = "--seeds 2 --lr 2^-7,2^-4"
OPTIONS = [  # each adds other keys to the stored specification
    f"grid --optimizer adamwr --wd 2^-5,2^-2 --epochs 8 --warmup 1 --t0 1 --tmult 2 {SMALL}",
    "grid --optimizer adamw:normalized --net mlp --no-decay-norm-bias --betas 0.8,0.99 --eps 1e-6 "
    f"--precision bfloat16 --wd 0,2^-5,2^-2 --epochs 3 --metric val_error {SMALL}",
    "grid --optimizer sgd --momentum 0.8 --nesterov --momentum-form torch --schedule step --eta-min 0.1 "
    f"--wd 2^-7,2^-4 --epochs 4 --cap 0.5 {SMALL}",
    f"grid --optimizer sgdw --net mlp --schedule fixed --wd 2^-7,2^12 --epochs 3 {SMALL}",  # diverges at 2^12
    f"compare adamw:lr-scaled sgdp adamp --wd 2^-6,2^-3 --epochs 3 --schedule linear {SMALL}",
]
IMAGES = (
    "grid --net ./net.py:ImageNet --data ./data.py:images --loss ./loss.py:weighted --standardize "
    "--augment crop-flip --batch-size 16 --no-decay bias --optimizer adam --lr 2^-6,2^-4 --wd 2^-8,2^-6 "
    "--seeds 2 --epochs 2"
)
IMPORT = (
    "study import theirs.csv --study-name theirs --optimizer lion --decay-rule lr-scaled --maximize "
    "--cap 0.2 --columns lr=learning_rate,value=accuracy --metric accuracy"
)

# Studies by the names that the program gave them.
ADAM, ADAMW, GRID_NAME, TPE_NAME = (
    f"digits-mlp-norm-{name}"
    for name in (
        "adam-cosine-4ep-b64",
        "adamw-cosine-4ep-b64",
        "sgdw-cosine-6ep-b64",
        "sgdw-cosine-3ep-b64-tpe",
    )
)
USER_NAME = "mine-data-load-net-net-adamw-cosine-3ep-b16-weights-only-spare-head-loss-smooth-width-6"
RESTARTS = "digits-mlp-norm-adamw-normalized-restarts-8ep-b64-warm1-t1"
OPTION_NAMES = [
    RESTARTS,
    "digits-mlp-adamw-normalized-cosine-3ep-b64-b1-0.8-b2-0.99-eps1e-06-weights-only-bfloat16",
    "digits-mlp-norm-sgd-step-4ep-b64-min0.1-mu0.8-nesterov-torch-momentum",
    "digits-mlp-sgdw-fixed-3ep-b64",
    *(f"digits-mlp-norm-{name}-linear-3ep-b64" for name in ("adamw-lr-scaled", "sgdp", "adamp")),
    "data-images-net-imagenet-adam-cosine-2ep-b16-crop-flip-spare-bias-loss-weighted",
    "theirs",
]

TRAIN = {  # what filled each store; the first command of `unfinished` was interrupted
    "lattices": [LATTICES],
    "unfinished": [GRID, f"{TPE} --trials 5", f"{USER} --lr 2^-6,2^-4"],
    "options": [*OPTIONS, IMAGES, IMPORT],
}
LIST, REPORT, EXPORT = "study list --format json", "report --format json", "study export"
READ = {  # what is printed of each store
    "lattices": [LIST, REPORT, f"{REPORT} {ADAMW} {ADAM} --metric val_error", f"{EXPORT} {ADAMW}"],
    "unfinished": [LIST, f"{REPORT} {GRID_NAME} {TPE_NAME} {USER_NAME}", f"{EXPORT} {GRID_NAME}"],
    "options": [
        LIST,
        REPORT,  # the import, the newest
        f"{REPORT} {' '.join(OPTION_NAMES[:-1])}",
        f"{REPORT} {RESTARTS} --at-restart 2",
        f"{EXPORT} theirs",
    ],
}


def start(command: str, folder: Path) -> subprocess.Popen[str]:
    """Start the program on a command line in `folder`, on the CPU and without settings of the user."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LRWD_")}
    return subprocess.Popen(
        [sys.executable, "-m", "lrwd_sweep", *shlex.split(command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        encoding="utf-8",
        cwd=folder,
    )


def run(command: str, folder: Path) -> str:
    """Run a command line in `folder` and return what it prints."""
    started = start(command, folder)
    out, err = started.communicate()
    if started.returncode:
        raise SystemExit(f"{command}: exit code {started.returncode}\n{err}")
    return out


def read(command: str, folder: Path) -> object:
    """Return the output of a command that reads the store, parsed where it is JSON."""
    out = run(command, folder)
    return json.loads(out) if "--format json" in command else out


def interrupt(command: str, folder: Path) -> None:
    """Run a command line and send SIGINT when the first pack is stored."""
    started = start(command, folder)
    while started.poll() is None and not _lanes(folder / STORE):
        time.sleep(0.005)
    started.send_signal(signal.SIGINT)
    started.communicate()
    if started.returncode != 128 + signal.SIGINT:
        raise SystemExit(f"{command}: exit code {started.returncode} is not that of SIGINT")


def _lanes(store: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
    except sqlite3.OperationalError:  # not created yet
        return 0


def main() -> None:
    """Write every store, and beside it the commands that read it with their output."""
    for name in sys.argv[1:] or TRAIN:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            shutil.copytree(HERE / "user", folder, dirs_exist_ok=True)
            for command in TRAIN[name]:
                (interrupt if command == GRID else run)(command, folder)
            outputs = {command: read(command, folder) for command in READ[name]}
            shutil.copy(folder / STORE, HERE / f"{name}.sqlite")
            if name == "unfinished":  # what the interrupted commands give when they are not interrupted
                for command in (GRID, f"{USER} --lr 2^-6:2^-4"):
                    run(f"{command} --storage whole.db", folder)
                for study in (GRID_NAME, USER_NAME):
                    command = f"{EXPORT} {study} --storage whole.db"
                    outputs[command] = read(command, folder)
            text = json.dumps(outputs, ensure_ascii=False, separators=(",", ":"))
            (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
