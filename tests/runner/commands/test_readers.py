"""The points of a run are read from what scripts print and write."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.runner.executors.commands import NothingRead
from lrwd_sweep.science.trial import Status
from lrwd_sweep.store import Store
from tests.runner.commands.conftest import ONE, spec, sweep


def event(step: int, tag: str, value: float, *, tensor: bool = False) -> bytes:
    """Encode a TensorBoard event, as torch (simple_value) and as TensorFlow 2 (a tensor) write it."""
    number = struct.pack("<f", value)
    inside = b"\x08\x01\x22\x04" + number  # dtype float, tensor_content
    scalar = b"\x42" + bytes([len(inside)]) + inside if tensor else b"\x15" + number
    summary = b"\x0a" + bytes([len(tag)]) + tag.encode() + scalar
    summary = b"\x0a" + bytes([len(summary)]) + summary
    time = b"\x09" + struct.pack("<d", 0.0)
    message = time + b"\x10" + bytes([step]) + b"\x2a" + bytes([len(summary)]) + summary
    return struct.pack("<QI", len(message), 0) + message + struct.pack("<I", 0)


def writing(path: str, *lines: str) -> str:
    text = "".join(f"{line}\n" for line in lines)
    return f"os.makedirs(os.path.dirname({path}), exist_ok=True)\nopen({path}, 'w').write({text!r})\n"


NANOGPT = '''print("""step 0: train loss 4.2, val loss 4.1
iter 0: loss 4.2, time 30.1ms, mfu -100.00%
step 250: train loss 2.5, val loss 2.75
saving checkpoint to out""")'''
NANOCHAT = '''print("""Step 00000 | Validation bpb: 3.2
step 00010/02000 (0.5%) | loss: 3.1 | lrm: 1.00 | dt: 12ms
Step 00250 | Validation bpb: 0.812345""")'''
TORCHTITAN = '''print("""\x1b[31m[titan] step: 10  loss:  9.9  grad_norm: 1.2\x1b[39m
\x1b[32m[titan] validate step: 5  loss:  9.0  memory: 1.5GiB\x1b[39m
\x1b[32m[titan] validate step: 10  loss:  8.0123  memory: 1.5GiB\x1b[39m""")'''
TRAINER = """
def save(folder, log):
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/trainer_state.json", "w") as file:
        json.dump({"best_metric": None, "global_step": 9, "log_history": log}, file)
log = [{"epoch": 0.5, "step": 50, "loss": 3.0}, {"epoch": 0.5, "step": 50, "eval_loss": 2.5}]
save(out + "/checkpoint-50", log)
save(out, log + [{"epoch": 1.0, "step": 100, "eval_loss": 2.25}, {"step": 100, "train_runtime": 3.0}])
"""
LIGHTNING = writing(
    'out + "/lightning_logs/version_0/metrics.csv"',
    *("epoch,step,train_loss,val_loss", "0,49,1.5,", "0,49,,1.25", "1,99,1.0,", "1,99,,0.75"),
)
TIMM = writing(
    'out + "/run/summary.csv"',
    *("epoch,train_loss,eval_loss,eval_top1", "0,2.5,2.0,40.0", "1,2.0,1.5,60.0", "2,1.9,1.75,55.0"),
)
OPEN_CLIP = writing(
    'out + "/run/checkpoints/results.jsonl"',
    *(json.dumps({"epoch": k, "clip_val_loss": 4.0 / k, "name": "run"}) for k in (1, 2)),
)
RESULT = 'os.environ["LRWD_RESULT"]'
LINES = [json.dumps({"step": k, "val_loss": 1 / k, "train_loss": 0.5 / k}) for k in (1, 2, 3)]
STEPS = writing(RESULT, *LINES) + 'print("val_loss: 99")'
DOCUMENT = writing(RESULT, json.dumps({"val_loss": 0.25, "acc": 0.5, "note": "no number"}))
EVENTS = 'import shutil; shutil.copy("events.out", out + "/events.out.tfevents.1")'
EVALUATED = [{"step": 1, "eval": {"loss": 3.0}}, {"step": 2, "eval": {"loss": 2.0}}]
NESTED = writing('out + "/r.json"', json.dumps({"runs": EVALUATED}))
CLOCK = 'print("[epoch 3] it took 12:30:01, v1.2: 3, val_loss=1e-3.")'
PAIRS = 'print("epoch: 3, val_loss: 1e-1"); print("epoch=4 val_loss=.5, 1,5")'
JSON = 'print("epoch 1,000: val_loss: 1,5"); print(json.dumps({"epoch": 2, "val_loss": 2.5}))'
BEST = {"take": "best"}
CLIP = "jsonl:{out}/run/checkpoints/results.jsonl:clip_val_loss"
REGEX = r"stdout:step (?P<step>\d+): train loss (?P<train_loss>\S+), val loss (?P<value>\S+)"
STATE = "json:trainer_state.json:log_history[].eval_loss"
TOP1 = {"metric": "eval_top1", "maximize": True}

# name, script, what is said, value, steps, unit
READ: list[tuple[str, str, dict[str, Any], float, tuple[float, ...], str]] = [
    ("nanoGPT", NANOGPT, {"read": "auto"}, 2.75, (0, 250), "step"),
    ("nanoGPT by a regular expression", NANOGPT, {"read": REGEX}, 2.75, (0, 250), "step"),
    ("nanochat", NANOCHAT, {"read": "auto", "metric": "val_bpb"}, 0.812345, (0, 250), "step"),
    ("torchtitan", TORCHTITAN, {"read": "auto"}, 8.0123, (5, 10), "step"),
    ("Trainer", TRAINER, {"read": "auto", "metric": "eval_loss"}, 2.25, (50, 100), "step"),
    ("Trainer by another name", TRAINER, {"read": "auto"}, 2.25, (50, 100), "step"),
    ("Trainer's file", TRAINER, {"read": STATE, "metric": None}, 2.25, (50, 100), "step"),
    ("Lightning", LIGHTNING, {"read": "auto"}, 0.75, (49, 99), "step"),
    ("Lightning's file", LIGHTNING, {"read": "csv:{out}/**/metrics.csv:val_loss"}, 0.75, (49, 99), "step"),
    ("timm", TIMM, {"read": "auto", "metric": "eval_loss"}, 1.75, (0, 1, 2), "epoch"),
    ("timm's best", TIMM, {"read": "auto", "take": "best", **TOP1}, 60.0, (0, 1, 2), "epoch"),
    ("timm's best loss", TIMM, {"read": "csv:run/*.csv:eval_loss", **BEST}, 1.5, (0, 1, 2), "epoch"),
    ("open_clip", OPEN_CLIP, {"read": CLIP}, 2.0, (1, 2), "epoch"),
    ("open_clip, auto", OPEN_CLIP, {"read": "auto", "metric": "clip_val_loss"}, 2.0, (1, 2), "epoch"),
    ("TensorBoard", EVENTS, {"read": "tb:events.*:val/loss"}, 1.5, (1, 2), "step"),
    ("TensorFlow's", EVENTS, {"read": "tb:events.*:tf"}, 0.5, (3,), "step"),
    ("nested JSON", NESTED, {"read": "json:r.json:eval.loss"}, 2.0, (1, 2), "step"),
    ("lines of the result", STEPS, {}, 1 / 3, (1, 2, 3), "step"),
    ("the result before --read", STEPS, {"read": "auto"}, 1 / 3, (1, 2, 3), "step"),
    ("a document as result", DOCUMENT, {}, 0.25, (), ""),
    ("a prefix", 'print("10:00:01 INFO Validation-loss: 3.5.")', {"read": "auto"}, 3.5, (), ""),
    ("other numbers", CLOCK, {"read": "auto"}, 1e-3, (3,), "epoch"),
    ("key: value", PAIRS, {"read": "auto"}, 0.5, (3, 4), "epoch"),
    ("JSON, not the 1 of 1,5", JSON, {"read": "auto"}, 2.5, (2,), "epoch"),
]  # fmt: skip


def test_every_script_of_the_table_is_read(store: Store) -> None:
    records = [event(1, "val/loss", 2.5), event(1, "lr", 9.0), event(2, "val/loss", 1.5)]
    half = event(3, "val/loss", 9.0)[:9]  # a record that is being written
    Path("events.out").write_bytes(b"".join([*records, event(3, "tf", 0.5, tensor=True), half]))
    for name, script, given, value, steps, unit in READ:
        asked = spec(script, **(ONE | given))
        (found,) = sweep(store, asked, name)
        assert found.status is Status.COMPLETE, (name, found)
        assert found.metrics[asked.metric] == value, (name, found.metrics)
        assert found.curves.get(unit, ()) == steps, (name, found.curves)
        assert len(found.curves[asked.metric]) == max(len(steps), 1), (name, found.curves)


def test_only_metrics_of_a_log_are_kept(store: Store) -> None:
    log = "weight_decay: 0.1, lr: 3, val_loss: 1.5, acc: 0.5, epoch: 2, batch size: 64, train_loss: 1"
    (found,) = sweep(store, spec(f'print("seed = 4"); print("{log}")', **ONE, read="auto"))
    assert found.metrics == {"val_loss": 1.5, "acc": 0.5, "train_loss": 1.0}
    assert set(found.curves) == {"val_loss", "acc", "train_loss", "epoch"}


def test_a_file_of_another_run_is_not_read(store: Store) -> None:
    Path("result.json").write_text('{"val_loss": 9.0}')
    script = 'if lr > 0.01:\n    json.dump({"val_loss": lr}, open("result.json", "w"))'
    given = {"read": "json:result.json:val_loss"}
    with pytest.raises(NothingRead, match="there was no file"):
        sweep(store, spec(script, **ONE, **given))
    (found,) = sweep(store, spec(script, **(ONE | {"lr": [0.02]}), **given))
    assert found.metrics == {"val_loss": 0.02}
