"""The commands that made the databases in this folder, and those whose output is stored next to them.

An earlier version wrote the databases, each by the commands above its name; the first of `unfinished` was
interrupted by SIGINT after its first pack. They stand for what users of that version have on disk: they are
not made again. The CSV of `--storage whole.db` in `unfinished.json` is that of uninterrupted commands.
"""

from pathlib import Path

HERE = Path(__file__).parent
STORE = "lrwd-sweep.db"

# lattices: LATTICES. unfinished: GRID, TPE --trials 5, USER --lr 2^-6,2^-4. options: OPTIONS, IMAGES, IMPORT.
LATTICES = "compare adam adamw --lr 2^-6:2^-2 --wd 2^-10,2^-8,2^-6,2^-4,2^-2 --seeds 3 --epochs 4"
# SGD, because Adam amplifies the rounding by which machines differ.
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

# The names that the program gave these studies.
ADAM, ADAMW = (f"digits-mlp-norm-{name}-cosine-4ep-b64" for name in ("adam", "adamw"))
GRID_NAME, TPE_NAME = "digits-mlp-norm-sgdw-cosine-6ep-b64", "digits-mlp-norm-sgdw-cosine-3ep-b64-tpe"
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

LIST, REPORT, EXPORT = "study list --format json", "report --format json", "study export"
READ = {  # commands that read each store; their output is in its JSON file
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
