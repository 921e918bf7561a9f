"""Splits of texts, of images normalised batch by batch, and their files; bad texts are refused."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lrwd_sweep.data import Pixels, Split, Splits, load
from lrwd_sweep.data.splits import load_splits, make_folder, save_splits
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DATA_SETS, POSITION, find_data_set
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_files import read_text
from tests.refusal import assert_raises
from tests.small import CPU

TEXT = "".join(f"zeile {k}: für Γ ⊂ λ\n" for k in range(60))  # characters of one to three bytes


def test_windows_cover_the_text_and_no_two_splits_share_a_token(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    for name, tokens in ((f"text:{path}", TEXT), (f"text-bytes:{path}", TEXT.encode())):
        for context in (1, 7, 100):
            sizes = find_data_set(name, context)
            vocabulary: list[Any] = sorted(set(tokens))
            assert (sizes.classes, sizes.shape, sizes.target) == (len(vocabulary), (context,), POSITION)
            assert (sizes.target_shape, sizes.inputs[0].most) == ((context,), len(vocabulary) - 1)
            splits, begin = load(name, sizes), 0
            for part, end in ((splits.train, 0.8), (splits.validation, 0.9), (splits.test, 1.0)):
                assert part.x.dtype == part.y.dtype == torch.int64
                whole = [vocabulary.index(one) for one in tokens[begin : int(end * len(tokens))]]
                assert len(part.x) == (len(whole) - 1) // context
                assert part.x.flatten().tolist() == whole[: part.x.numel()], (name, context)
                assert part.y.flatten().tolist() == whole[1 : part.x.numel() + 1], (name, context)
                begin = int(end * len(tokens))
            assert (sizes.train, sizes.validation, sizes.test) == tuple(map(len, splits.parts.values()))


def test_a_folder_is_its_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name, text in (("b.txt", "two"), ("a/z.txt", "one"), (".hidden", "no"), (".git/x", "no"), ("c", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text * 40)
    found = read_text(f"text:{tmp_path}", 4)
    assert found.tokens == "one" * 40 + "two" * 40
    assert read_text(f"text-bytes:{tmp_path}", 4).tokens == found.tokens.encode()


def test_pythons_topics_are_a_text_without_repetition() -> None:
    found = read_text("python-docs", 32)
    assert isinstance(found.tokens, str)
    assert len(found.tokens) == 1 << 17
    paragraphs = found.tokens.split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs) > 500
    assert Task(net="gpt", data="python-docs").data_set.digest == found.digest  # versions of Python differ


@pytest.mark.usefixtures("folder")
def test_bad_and_changed_texts_are_refused() -> None:
    Path("short.txt").write_text("to be or not to be")
    Path("same.txt").write_text(TEXT)
    sizes = find_data_set("text:same.txt", 8)
    request = Request.of(net="gpt", data="text:same.txt", batch_size=8, net_options="context=8")
    before = request.spec(request.variant("adam"))
    Path("same.txt").write_text(TEXT.swapcase())
    now = find_data_set("text:same.txt", 8).digest
    assert before.differences(request.spec(request.variant("adam"))) == [
        f"data of text:same.txt, which changed: {sizes.digest}, {now}"
    ]
    assert_raises("has changed", load, "text:same.txt", sizes, error=DataError)
    Path("same.txt").write_text("a" * 2000)
    for folder in ("folder", "latin"):
        Path(folder).mkdir()
    Path("latin", "a.txt").write_text(TEXT)
    Path("latin", "b.txt").write_bytes(b"abc\xe9")
    for name, complaint in {
        "text:": "write text:PATH, a file or a folder of files",
        "text:no.txt": "there is no file or folder 'no.txt'; paths begin at ",
        "text:short.txt": "'short.txt' has 18 characters, and windows of 64 need 650; give a longer text, or",
        "text-bytes:same.txt": "'same.txt' has 2000 bytes and only 1 different; give a text",
        "text:folder": "the folder 'folder' holds no files; put some in it",
        "text:latin": "'latin/b.txt' is not UTF-8 at byte 3; convert or remove it, or read bytes, as",
    }.items():
        assert_raises(f"^data={name!r}.*{complaint}", lambda: Task(net="gpt", data=name))  # noqa: B023
    assert Task(net="gpt", data="text-bytes:latin", batch_size=8).data_set.classes > 20


def test_images_are_normalised_by_the_batch_and_stay_bytes_also_in_a_file(tmp_path: Path) -> None:
    x = torch.randint(256, (25, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[:, 1] = 7  # a constant channel becomes 0
    exact = x.double().sub(x.double().mean((0, 2, 3), keepdim=True))
    exact[:, [0, 2]] /= x[:, [0, 2]].double().std((0, 2, 3), correction=0, keepdim=True)
    digits, y = load("digits", DATA_SETS["digits"]).validation, torch.arange(25)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        made = Split(x, y, Pixels.of(x)).to(CPU, dtype)
        save_splits(Splits(made, digits, digits), tmp_path / "splits")
        found = load_splits(tmp_path / "splits")
        assert torch.equal(found.test.x, digits.x)
        for split in (made, found.train):
            assert (split.x.dtype, split.dtype, split.device) == (torch.uint8, dtype, CPU)
            numbers, labels = split.batch(torch.tensor([7, 0, 7]))
            assert (numbers.dtype, labels.tolist()) == (dtype, [7, 0, 7])
            assert (numbers - exact[labels]).abs().max() < tolerance
            parts, ends = zip(*split.batches(10), strict=True)
            assert [*map(len, parts)] == [10, 10, 5]
            assert torch.equal(torch.cat(parts), split.batch(y)[0])
            assert torch.equal(torch.cat(ends), y)


def test_folders_of_killed_programs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    kept = {f"lrwd-sweep-{os.getpid()}-held", "lrwd-sweep-notes"}
    for name in (f"lrwd-sweep-{ended.pid}-left", *kept):
        (tmp_path / name).mkdir()
    mine = make_folder()
    assert {path.name for path in tmp_path.iterdir()} == {*kept, mine.name}
