"""`--data`, `--data-dir`, `--download` and `--augment` find data, or fail in one line."""

from pathlib import Path

import pytest

from lrwd_sweep.spec import catalog
from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Run, assert_refused
from tests.data.formats import CIFAR10, COLOUR, publish, write_images

AXES = ("--lr", "2^-8:2^-7", "--wd", "2^-8:2^-7", "--epochs", "2", "--seeds", "1", "--net", "mlp")
CIFAR = ("grid", *AXES, "--data", "cifar10", "--batch-size", "16")


@pytest.fixture(autouse=True)
def _no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRWD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a tiny CIFAR-10, which the catalog and torchvision take for the published one."""
    monkeypatch.setitem(catalog.DATA_SETS, "cifar10", COLOUR)
    CIFAR10(tmp_path / "data")
    publish(monkeypatch, tmp_path / "data")
    return tmp_path / "data"


def test_missing_files_are_one_line_and_leave_no_study(run: Run, tmp_path: Path) -> None:
    where = tmp_path / "cache" / "lrwd-sweep"
    assert_refused(
        run(*CIFAR),
        3,
        f"lrwd-sweep: cifar10 is not in {where} (no cifar-10-batches-py/data_batch_1); add --download, "
        "put cifar-10-python.tar.gz there, or name another folder by --data-dir",
    )
    assert not where.exists()
    assert run("tpe", *CIFAR[1:]).code == 3
    with open_store(STORE, write=False) as store:
        assert store.studies() == []
    assert_refused(run("grid", *AXES, "--data", "imagenet32"), 3, "image-net.org", "lrwd-sweep/imagenet32")


def test_data_dir_is_taken_before_the_environment(
    run: Run, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_refused(run(*CIFAR, "--data-dir", "elsewhere"), 3, "is not in elsewhere")
    trained = run(*CIFAR, "--data-dir", str(cifar))
    assert trained.code == 0
    next_command = " ".join(trained.out.replace("\\\n", "").split())  # lines joined as a shell does
    assert f"--data-dir {cifar}" in next_command
    monkeypatch.setenv("LRWD_DATA", str(cifar))
    found = run(*CIFAR, "--seeds", "2")
    assert (found.code, "4 of 8 lanes are in the store" in found.err) == (0, True)
    path = cifar / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(run(*CIFAR, "--epochs", "3"), 3, f"{path} is not the published file")


def test_image_folder_trains_and_is_refused_once_it_has_changed(run: Run, tmp_path: Path) -> None:
    missing = ("grid", *AXES, "--data", "folder:nowhere")
    assert_refused(run(*missing), 3, "--data folder:nowhere", "train/CLASS")
    assert not list(tmp_path.iterdir())
    for label in ("cat", "dog"):
        write_images(tmp_path / "mine" / "train" / label, 20, side=8, seed=ord(label[0]))
    folder = ("grid", *AXES, "--data", "folder:mine@8", "--batch-size", "8")
    assert run(*folder).code == 0
    assert run("report").code == 0
    write_images(tmp_path / "mine" / "train" / "cat", 30, side=8, seed=9)
    assert_refused(
        run(*folder), 2, "folder-mine-8-mlp-adamw-cosine-2ep-b8", "sizes: ", "'train': 32", "'train': 40"
    )
