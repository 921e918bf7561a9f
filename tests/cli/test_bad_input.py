"""Bad input: one line with the value and the remedy, nothing trained, nothing stored."""

from pathlib import Path
from unittest.mock import Mock

from tests.cli.conftest import ADAMW, STORE, TINY, Patch, Run, assert_refused

USAGE = (  # a command, parts of the line; tests/spec has the values that a field refuses
    ("grid -o adamm", "'adamm'", "adam", "adamw"),
    ("grid --schedule cosin", "'cosin'", "cosine"),
    ("grid --preset no.toml", "'no.toml'", "name a preset or a TOML file"),
    ("grid --metric accuracy", "'accuracy'", "val_error, which is 1 − accuracy"),
    ("grid --epochs 2.5", "--epochs '2.5'", "whole number"),
    ("grid --checkpoint-every=-1", "--checkpoint-every -1 is too small"),
    ("grid --seeds 1000000000", "--seeds 1000000000", "at most"),
    ("grid --max-lanes 0", "--max-lanes 0", "at least 1"),
    ("grid --study-name=", "''", "--study-name my-sweep"),
    ("grid --frobnicate", "--frobnicate", "lrwd-sweep grid --help"),
    ("grid --lr", "--lr", "lrwd-sweep --help"),
    ("grid --executor rai", "unknown executor 'rai'; did you mean ray?"),
    ("grid --ray-address a:1", "--ray-address a:1 has no effect without --executor ray"),
    ("grid --executor ray --dry-run", "--dry-run measures this machine; leave --executor ray out"),
    ("grid --executor ray --device cuda:1", "--device cuda:1 has no effect on a cluster"),
    ("grid --download", "--download has no effect on digits", "leave it out"),
    ("grid --data imagenet32 --download", "account at image-net.org", "leave it out"),
    ("grid --refine --shard=1/2", "--refine decides from all results so far, and a shard knows"),
    ("grid --max-runs=500", "--max-runs 500 requires --refine; add it"),
    ("grid --dry-run --retrain-damaged", "does not count damaged lanes; leave --retrain-damaged out"),
    ("tpe --trials 0", "--trials 0", "at least 1"),
    ("tpe --refine", "--refine chooses cells of a lattice, and TPE its own points"),
    ("tpe --shard 1/3", "--shard 1/3 divides a lattice, not a search", "TPE"),
    ("compare --refine --max-runs=5", "--max-runs 5 is less than the 7"),
    ("report --format xml", "'xml'", "json"),
    ("report --max-best low", "--max-best 'low'", "is not a number"),
    ("report --max-best inf", "--max-best 'inf'", "leave the option out"),
    ("report --max-failed 1.5", "--max-failed '1.5'", "whole number"),
    ("report --min-seeds 0", "--min-seeds 0", "at least 1"),
    ("report --open --format csv", "--open shows html, not csv", "leave out --format"),
    ("report --axis decimal --format json", "json has no axis labels; choose table, markdown or html"),
    ("report --max-sequential-regret -1", "--max-sequential-regret -1 is too small; choose at least 0"),
    ("report --octaves 2", "--octaves 2 requires --max-transfer-regret V"),
    ("report --octaves 0 --max-transfer-regret 1", "--octaves 0 is not a distance; choose more than 0"),
    ("report --baseline old.json", "--baseline 'old.json' requires --max-regression V"),
    ("report --max-regression 1", "--max-regression 1 requires --baseline OLD.json"),
    ("report --require seperable", "unknown verdict 'seperable'; did you mean separable?"),
    ("report --minimize --maximize", "--maximize and --minimize exclude each other"),
    ("report --format github --show norm", "github holds no pictures"),
    ("report --show ,", "--show ',' has an empty name"),
    ("report --format github --full", "--full adds nothing to github"),
    ("report --output a.svg --figure a.svg", "--output and --figure are both a.svg; name two files"),
    ("study export x --format xls", "'xls'", "csv"),
    ("study import no.csv --study-name x -o adamw", "no.csv", "can be read"),
    ("study import no.csv", "--study-name", "lrwd-sweep study import --help"),
    ("convert -o rmsprop --lr 1 --wd 1 --to lr-scaled", "RMSProp", "rmspropw"),
    ("convert -o adam --lr 1 --wd 1 --to lr-scaled", "Proposition 2", "compare adam"),
    ("convert -o adamw --lr 1e-3 --wd -1", "--wd -1", "above 0"),
    ("convert -o adamw --lr 1e-200 --wd 1e200", "1e+200", "lr-scaled"),
    ("convert -o adamw --lr 1e-3 --wd 1 --to l2", "'l2'", "coupled"),
    ("convert -o adamw --lr 1e-3 --wd 1 --epochs 9", "--batch-size and --train-size", "--steps"),
    ("convert -o adamw --lr 1e-3 --wd 1 --steps 9 --epochs 9", "--steps 9", "leave out"),
    ("convert -o adamw --lr 1e-3 --wd 1 --drop-last", "--drop-last needs --train-size", "leave it out"),
    ("convert -o adamw --lr 1e-3 --wd 1 --momentum 0.9", "--momentum 0.9", "leave it out"),
    ("bench --optimizers sgdw --scaling", "are two measurements"),
    ("bench --optimizers sgdw,sgdw", "names sgdw twice"),
    ("bench --scaling --contenders plain", "--scaling does not use --contenders; leave it out"),
    ("bench --overhead --net mlp", "does not use --net"),
    ("bench --device cpu --contenders graphs", "--contenders graphs runs only on cuda, not on cpu; leave"),
    ("bench --contenders plane", "unknown contender 'plane'; did you mean plain?"),
    ("bench --contenders plain,plain", "names plain twice"),
    ("bench --lanes 0", "--lanes 0 is too small; choose at least 1"),
    ("transfer", "--over is required: write --over epochs=15,60,240"),
    ("transfer --over epochs", "--over epochs names no values; write epochs=15,60,240"),
    ("transfer --over epochs=3", "has one value; a scale needs two or more"),
    ("transfer --over epochs=3,4 --figure a.gif", "unknown figure format '.gif'"),
    ("transfer --over epochs=3,4 --figure a.svg --output a.svg", "are both a.svg; name two files"),
    ("transfer --over epochs=3,4 --over width=8,9", "--over is given 2 times; sweep over one quantity"),
    ("transfer --over epochs=3,4 --epochs 60", "--epochs 60 has no effect: --over sets it"),
    ("transfer --over width=8,9 --net-options width=7", "--net-options width=7 has no effect: --over"),
    ("transfer --over epochs=3,4 --shard 1/2 --format csv", "has no effect with --shard 1/2"),
    ("transfer --over epochs=3,4 --full --format json", "--full adds nothing to json; choose table"),
    ("transfer --over epoch=3,4", "unknown scale 'epoch'; did you mean epochs?"),
    ("transfer --over epochs=3,x", "'x' is not a number"),
    ("transfer --over epochs=1.5,2", "1.5 is not a whole number of at least 1"),
    ("transfer --over width=4,8 --net resnet20", "--net-options width=4 has no effect on resnet20"),
    ("transfer --over train-fraction=0.5,2", "2 is not a share above 0, and at most 1"),
    ("transfer --over train-fraction=0.01,1", "is larger than --train-fraction 0.01 of the training set of"),
    ("transfer --over epochs=1,2 --run x{lr}{weight_decay}", "--run cannot be swept over epochs"),
    ("transfer --over=epochs=1,2 --refine", "--refine ends at a verdict, but each lattice"),
    ("preset show digitss", "'digitss'", "digits"),
    ("docs separabilty", "'separabilty'", "did you mean separability"),
    ("worker --head here", "--head here is not of the form HOST:PORT"),
    ("gird", "gird", "lrwd-sweep --help"),
)
JUDGING = (  # options of every command that reports
    ("--margin 0", "--margin '0' is not a number above 0 and at most 0.5"),
    ("--margin nan", "--margin 'nan'", "write one like 0.25"),
    ("--cap nan", "--cap 'nan' is not finite"),
    ("--axis log", "unknown axis 'log'; known: powers, decimal"),
)
COMMANDS = ("report", "report --format json", "grid", "compare adam adamw", "tpe")
SHARED = [(f"{command} {options}", *parts) for command in COMMANDS for options, *parts in JUDGING]
HOST = (
    ("grid --device cuda:99", "--device cuda:99", "--device cpu"),
    ("worker --head 127.0.0.1:1", "--head 127.0.0.1:1: no head", "ray start --head --port 1"),
    ("grid --executor ray --spool /dev/null/x", "--spool", "cannot be written"),
    ("verify --device cuda:99", "--device cuda:99", "--device cpu"),
    ("grid --storage postgresql://me:secret@host/x", "'postgresql'", "sqlite:///FILE.db"),
)
NOTHING = [(words, "lrwd-sweep compare") for words in ("report", "report x", "study list", "study show x")]


def test_bad_input_is_one_line_and_leaves_no_store(run: Run) -> None:
    for code, cases in ((2, USAGE), (2, SHARED), (3, HOST), (4, NOTHING)):
        for words, *parts in cases:
            assert_refused(run(*words.split()), code, *parts)
            assert not list(Path().iterdir()), words


def test_impossible_report_unknown_study_and_another_spec_change_nothing(run: Run, compared: Path) -> None:
    before = compared.read_bytes()
    for options, *parts in (
        ("--baseline no.json --max-regression 1", "no.json", "report --format json"),
        ("--output no/such/file", "--output no/such/file", "can be written"),
        ("--figure figure.doc", "'.doc'", ".svg"),
        ("--at-restart 1", "--at-restart 1", "no snapshot of a restart"),
        ("--figure no/such/figure.pdf", "--figure no/such/figure.pdf", "can be written"),
    ):
        assert_refused(run(f"report {options}"), 2, *parts)
        assert [path.name for path in compared.parent.iterdir()] == [STORE], options
    for command in ("report", "study show", "study delete", "study export"):
        assert_refused(run(f"{command} {ADAMW[:-1]}"), 2, f"'{ADAMW[:-1]}'", ADAMW)
    for options, *parts in (
        ("--epochs 3", "--study-name", "epochs: 2, 3"),
        ("-o adam", "optimizer: adamw, adam", "decay_rule: independent, coupled"),
    ):
        found = run("grid", *TINY, *options.split(), "--study-name", ADAMW)
        assert_refused(found, 2, f"'{ADAMW}'", *parts)
    for command in ("report", f"study export {ADAMW}"):
        found = run(f"{command} --output '{compared}'")
        assert_refused(found, 2, "is a database, perhaps a store; name another file")
    assert compared.read_bytes() == before
    elsewhere = (*TINY, "--storage", "other.db")
    run("grid", "-o", "sgd", *elsewhere, "--study-name", ADAMW, code=0)
    before = Path("other.db").read_bytes()
    assert_refused(run("compare", "adam", "adamw", *elsewhere), 2, f"'{ADAMW}'", "optimizer: sgd, adamw")
    assert Path("other.db").read_bytes() == before


def test_our_own_fault_is_one_line_with_code_5(run: Run, monkeypatch: Patch) -> None:
    broken = Mock(side_effect=ZeroDivisionError("ours\x1b[31m"))
    monkeypatch.setattr("lrwd_sweep.cli.preset.preset_names", broken)
    said = "this is a fault of lrwd-sweep: ZeroDivisionError: ours\\x1b[31m (LRWD_DEBUG=1 shows where)"
    assert run("preset list") == (5, "", f"lrwd-sweep: {said}\n")
