"""A kill or a failure of the disk at every write, sync, rename and unlink of a run loses nothing."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import faults
from tests.faults import CALLS, STORE, Commands

NAME, LANES, PACK = "killed", 6, 2
SWEEP = ("grid", "--lr", "2^-8:2^-7", "--wd", "2^-8:2^-6", "--epochs", "20", "--seeds", "1", "-q")
COMMAND = (*SWEEP, "--max-lanes", str(PACK), "--study-name", NAME, "--checkpoint-every", "0.02")
KILLS, ERRORS = 150, 60

Point = tuple[str, int, str]  # system call, its number in a thread, what is done to it


def points(counts: dict[tuple[str, str], int]) -> list[Point]:
    """Return an even sample of all calls: kills, then errors, of which a third stay."""
    every = [
        (call, k + 1) for call in CALLS for k in range(max(n for (_, c), n in counts.items() if c == call))
    ]
    kills: list[Point] = [(call, k, "signal=KILL") for call, k in _sample(every, KILLS)]
    errors = [error for error in ("ENOSPC", "EIO") for _ in range(2)]
    chosen = enumerate(_sample(every, ERRORS))
    return kills + [(call, k, f"error={errors[n % 4]}{'+' * (n % 3 == 0)}") for n, (call, k) in chosen]


def _sample(every: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    return [every[k * len(every) // count] for k in range(min(count, len(every)))]


def _traces() -> bool:
    """Return True if this system has strace and lets it trace a process."""
    command = ["strace", "-qq", "-o", "/dev/null", "true"]
    return shutil.which("strace") is not None and not subprocess.run(command, check=False).returncode


@pytest.mark.slow
@pytest.mark.skipif(not _traces(), reason="strace is missing, or may not trace processes here")
def test_no_system_call_loses_anything_when_it_is_the_last_or_fails(tmp_path: Path) -> None:
    store = tmp_path / STORE

    def remove_rescued() -> None:
        for file in tmp_path.glob(f"{STORE}.rescue-*"):
            file.unlink()

    def removed() -> None:
        remove_rescued()
        store.unlink(missing_ok=True)
        shutil.rmtree(f"{store}.packs", ignore_errors=True)

    violations, seen = [], Counter[str]()
    with Commands(tmp_path) as commands:
        code, err, acknowledged = commands.run(*COMMAND, strace=("-e", f"trace={','.join(CALLS)}"))
        assert (code, acknowledged) == (0, LANES), err
        whole = faults.stored(store, NAME)
        counts = faults.counted_calls(tmp_path / "trace")
        for call, number, fault in points(counts):
            removed()
            what = fault.removesuffix("+")
            rule = f"inject={call}:{what}:when={number}{fault.removeprefix(what)}"
            code, err, acknowledged = commands.run(*COMMAND, strace=("-e", f"trace={call}", "-e", rule))
            try:
                if fault != "signal=KILL":
                    faults.assert_told(code, err, 0, 3)
                seen[fault] += code == -9 or "INJECTED" in (tmp_path / "trace").read_text()
                for rescue in tmp_path.glob(f"{STORE}.rescue-*.db"):
                    if rescue.name in err:
                        faults.assert_told(*commands.run("study", "merge", STORE, rescue.name)[:2], 0)
                        seen["rescued"] += 1
                    else:  # what could not be deleted again
                        assert (call, fault[-1]) == ("unlink", "+"), f"I6: {err}"
                    remove_rescued()
                seen["stored"] += faults.assert_kept(store, NAME, acknowledged, PACK)
                code, err, _ = commands.run(*COMMAND)
                faults.assert_told(code, err, 0)
                faults.assert_finished(store, NAME, whole)
            except AssertionError as violation:
                violations.append((rule, str(violation).splitlines()[0]))
    done = ", ".join(f"{count} {fault}" for fault, count in seen.items())
    sys.stdout.write("".join(f"{violation}\n" for violation in violations))
    sys.stdout.write(f"{sum(counts.values())} calls; {done}; {len(violations)} violations\n")
    assert violations == []
    assert seen["signal=KILL"] >= 125, seen
    assert sum(count for fault, count in seen.items() if fault.startswith("error")) >= 35, seen
