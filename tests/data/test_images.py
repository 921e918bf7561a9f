"""Pickled images are read exactly, and nothing is called by them; augmentation changes what it says."""

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.data import augmentation
from lrwd_sweep.data.images import crop_flip, cutout, read_pickle
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.errors import DataError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.catalog import AUGMENTATIONS
from tests.data.formats import python2_pickle
from tests.refusal import assert_raises
from tests.small import pack, splits, task

MARK = "ran"
TOUCH = f"open({MARK!r}, 'w').close()"
shapes, types = arrays.array_shapes(max_dims=3, max_side=5), ["u1", "i4", "<i8", ">i2", "f4", "f8"]
numbers = arrays.arrays(st.sampled_from(types), shapes, elements=st.integers(0, 100))
values = numbers | st.lists(st.integers(-(2**70), 2**70) | st.text() | st.binary(min_size=1), max_size=5)
tables = st.dictionaries(st.text(max_size=8), values, max_size=5)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data_batch_1"


def _assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, b[key])
            assert value.dtype.newbyteorder("=") == b[key].dtype.newbyteorder("=")
        else:
            assert value == b[key]


@given(table=tables, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_tables_of_arrays_and_lists_are_read_as_pickle_reads_them(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], protocol: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pickled"
    path.write_bytes(pickle.dumps(table | {"columns": np.asfortranarray(np.eye(2, 3))}, protocol))
    _assert_same(read_pickle(path), pickle.loads(path.read_bytes()))


def test_pickles_of_python_2_and_of_either_numpy_are_read(file: Path) -> None:
    table = {"data": np.arange(256, dtype=np.uint8).reshape(2, 128), "labels": [0, 9], "filenames": ["a.png"]}
    file.write_bytes(python2_pickle(table))
    _assert_same(read_pickle(file), table)
    for protocol in (2, 3):  # the names of modules end in a newline there
        text = pickle.dumps(table, protocol)
        for core in (b"numpy.core", b"numpy._core"):
            former = text.replace(b"cnumpy._core.", b"cnumpy.core.")
            file.write_bytes(former.replace(b"cnumpy.core", b"c" + core))
            _assert_same(read_pickle(file), table)


class Runs:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def _dtype_by_a_call() -> bytes:
    """Pickle an array whose dtype is what a call gives."""
    call = b"cbuiltins\neval\n(U" + bytes([len(TOUCH)]) + TOUCH.encode() + b"tR"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    return b"\x80\x02}U\x04data" + array + call + b"\x87Rs."


LIVE = {
    "os.system, protocol 0": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 0),
    "os.system, protocol 4": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 4),
    "builtins.eval": pickle.dumps({"data": Runs(eval, TOUCH)}, 5),
    "nested": pickle.dumps({"data": [({"a": [Runs(os.system, f"touch {MARK}")]},)]}, 4),
    "an array of objects": pickle.dumps({"data": np.array([Runs(eval, TOUCH)], dtype=object)}, 4),
    "a dtype that is a call": _dtype_by_a_call(),
    "INST": b"(U" + bytes([len(TOUCH)]) + TOUCH.encode() + b"ibuiltins\neval\n.",
    "OBJ": b"(cbuiltins\neval\nU" + bytes([len(TOUCH)]) + TOUCH.encode() + b"o.",
}


def test_a_malicious_pickle_is_refused_and_nothing_runs(file: Path) -> None:
    mark = file.with_name(MARK)
    for kind, content in LIVE.items():
        file.write_bytes(content)
        line = r"data_batch_1 is not a pickled data set \(it asks for"
        assert_raises(line, read_pickle, file, error=DataError)
        assert not mark.exists(), kind
        with contextlib.suppress(TypeError, ValueError):  # numpy refuses the result of the call, after it
            pickle.loads(content)
        assert mark.exists(), kind  # it was a live one
        mark.unlink()


SHAPED = python2_pickle({"data": np.zeros((2, 3), np.uint8)})
STRANGE = {
    "a persistent name": b"\x80\x02}U\x04dataPname\ns.",
    "ndarray called": b"\x80\x02}U\x04datacnumpy\nndarray\n)Rs.",
    "a shape without its bytes": SHAPED.replace(b"J\x03\x00\x00\x00", b"J\xff\xff\xff\x7f"),
    "a long name of many lines": b"\x80\x04\x8c\xc8" + b"a\n" * 100 + b"\x8c\x01x\x93.",
    "a text of 2⁶¹ bytes": b"\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x20.",
    "a list": pickle.dumps([1, 2]),
    "text": b"<!DOCTYPE html><html>",
    "a memo that is not there": b"\x80\x02}U\x04datah\x07s.",
    "an unfilled stack": b"\x80\x02s.",
}


def test_other_content_and_every_truncation_is_refused_in_one_line(file: Path) -> None:
    whole = python2_pickle({"labels": [1, 2], "data": np.arange(12, dtype=np.uint8).reshape(2, 6)})
    cut = {f"the first {n} bytes": whole[:n] for n in range(len(whole))}
    for content in (STRANGE | cut).values():
        file.write_bytes(content)
        assert_raises(f"^(?=.{{1,500}}$){file} .*get it again", read_pickle, file, error=DataError)
    assert_raises("Is a directory", read_pickle, file.parent, error=DataError)


def _stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _coordinates(batch: int, side: int) -> Tensor:
    """Make images whose pixels are their own positions, from 1."""
    return torch.arange(1.0, side * side + 1).reshape(1, 1, side, side).repeat(batch, 2, 1, 1)


def test_crop_flip_gives_crops_of_the_padded_image_half_of_them_mirrored() -> None:
    for side, pad in ((8, 1), (28, 4), (32, 4), (64, 8)):
        x = _coordinates(40, side)
        padded = functional.pad(x[0], (pad, pad, pad, pad))
        places = range(2 * pad + 1)
        crops = [padded[:, top : top + side, left : left + side] for top in places for left in places]
        plain = {crop.numpy().tobytes() for crop in crops}
        mirrored = {crop.flip(2).numpy().tobytes() for crop in crops}
        assert len(plain | mirrored) == 2 * (2 * pad + 1) ** 2
        found = [image.numpy().tobytes() for image in crop_flip(x, _stream())]
        assert set(found) <= plain | mirrored, side
        assert 0 < sum(image in mirrored for image in found) < 40, side


def test_cutout_blanks_a_square_of_half_the_side_clipped_at_the_border() -> None:
    for side in (8, 28, 32):
        x = torch.ones(300, 3, side, side, dtype=torch.float64)
        out = cutout(x, _stream())
        assert x.min() == 1  # not in place
        half, seen = side // 2, set()
        for image in out:
            blank = image[0] == 0
            assert all(torch.equal(channel == 0, blank) for channel in image)
            lengths = []
            for axis in (0, 1):
                places = blank.any(dim=1 - axis).nonzero().flatten().tolist()
                first, length = places[0], places[-1] - places[0] + 1
                assert half // 2 <= length <= half, side
                assert length == half or first == 0 or first + length == side, side
                lengths.append(length)
            assert blank.sum() == lengths[0] * lengths[1]  # a rectangle
            seen.add(tuple(lengths))
        assert (half, half) in seen
        assert len(seen) > 1


def _trained(lanes: int, seed: int, augment: str) -> tuple[list[Tensor], float]:
    cells = [Cell(0.1, 0.01 * k) for k in range(lanes)]
    trainer = pack("sgd", task("mlp", augment=augment), cells, seed=seed)
    seen, augmented = list[Tensor](), trainer.draws[0].augment

    def watched(x: Tensor) -> Tensor:
        seen.append(augmented(x).clone())
        return seen[-1]

    trainer.draws[0].augment = watched
    return seen, trainer.run()[0].metrics["val_loss"]


def test_training_images_are_changed_by_the_seed_and_not_by_the_pack() -> None:
    for augment in AUGMENTATIONS:
        one, loss = _trained(1, 0, augment)
        three, same = _trained(3, 0, augment)
        assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True)), augment
        assert loss == pytest.approx(same, rel=1e-6), augment
        assert not torch.equal(one[0], _trained(1, 1, augment)[0][0]), augment
        order = torch.randperm(48, generator=generator(0, "data order"))
        plain, _ = splits().train.batch(order[:16])
        assert torch.equal(one[0], augmentation(augment, generator(0, "augmentation"))(plain)), augment
        assert torch.equal(one[0], plain) is (augment == "none"), augment
