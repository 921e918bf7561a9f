"""The guide's files for clusters run: Slurm's array and the job that joins it, Kubernetes, ssh, parallel."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from tests.test_readme import PAGES, blocks, run

ARRAY, SUBMIT, SSH, PARALLEL, _, NODES, _ = blocks(PAGES["clusters"], "bash")
SMALL = ["--lr", "2^-8:2^-6", "--wd", "2^-8:2^-6", "--seeds", "2"]
__all__ = ["run"]


Shell = Callable[..., tuple[int, list[list[str]]]]
_NOTE = 'printf "%s\\n" "${0##*/} $*" >> noted\n'
PROGRAMS = {  # lrwd-sweep, Slurm, ssh and parallel: they note their words, and do not train
    "lrwd-sweep": f"{_NOTE}exit ${{ENDS:-0}}\n",
    "scontrol": _NOTE,
    "sbatch": f'{_NOTE}echo 17\n[ "$3" = --wrap ] && exec bash -c "$4"\n[ -f "$2" ]\n',
    "ssh": 'exec bash -c "$2"\n',
    "parallel": 'while [ $1 != lrwd-sweep ]; do shift; done\nset -- "$*"\n'
    'for k in ${1##*:::}; do c="${1%:::*}"; ${c//\\{\\}/$k}; done\n',
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Run a script by bash; return its exit status and the words of its commands."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}")
        (folder / name).chmod(0o755)

    def run_script(script: str, **environment: str) -> tuple[int, list[list[str]]]:
        Path("noted").unlink(missing_ok=True)
        environment["PATH"] = f"{folder}:{os.environ['PATH']}"
        ended = subprocess.run(["bash", "-c", script], env=os.environ | environment, check=False)
        lines = Path("noted").read_text().splitlines() if Path("noted").exists() else []
        return ended.returncode, [line.split() for line in lines]

    return run_script


def test_the_array_is_of_all_shards_and_its_job_joins_them(
    run: Callable[[Sequence[str]], int], shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sweep.sh").write_text(ARRAY)
    first, last = map(int, re.findall(r"--array=(\d+)-(\d+)", ARRAY)[0])
    for k in range(first, last + 1):
        code, ((*command, shard),) = shell(ARRAY, SLURM_ARRAY_TASK_ID=str(k), SLURM_ARRAY_JOB_ID="9")
        assert (code, shard) == (0, f"{k}/{last}")
        if k > 1:  # as if it had trained
            shutil.copy("lrwd-sweep-1of8.db", f"lrwd-sweep-{k}of8.db")
        else:
            assert run([*command, shard, *SMALL]) == 0, capsys.readouterr().err
    for ends, code, noted in ((3, 3, 1), (124, 124, 2)):  # an error; out of time
        found, commands = shell(ARRAY, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="9", ENDS=str(ends))
        assert (found, len(commands)) == (code, noted), ends
    assert commands[1] == ["scontrol", "requeue", "9_1"]
    code, noted_commands = shell(SUBMIT)
    assert code == 0
    assert noted_commands[0] == ["sbatch", "--parsable", "sweep.sh"]
    assert noted_commands[1][:2] == ["sbatch", "--dependency=afterany:17"]
    merge, report = noted_commands[2:]
    assert merge[4:] == [f"lrwd-sweep-{k}of{last}.db" for k in range(first, last + 1)]
    assert run(merge) == run(report) == 0


def test_other_files_name_every_shard(shell: Shell) -> None:
    (text,) = blocks(PAGES["clusters"], "yaml")
    job = yaml.safe_load(text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    pods = [
        shell(shlex.join(container["command"]), JOB_COMPLETION_INDEX=str(k))[1][0]
        for k in range(job["spec"]["completions"])
    ]
    loop = shell(SSH + "wait\nwhile [ $(wc -l < noted) -lt 4 ]; do sleep 0.02; done")[1]
    ((*node, cpus),) = shell(NODES, SLURM_CPUS_PER_TASK="4")[1]
    assert (node[:3], cpus) == (["lrwd-sweep", "worker", "--head"], "4")
    for commands in (pods, loop, shell(PARALLEL)[1]):
        shards = sorted(tuple(map(int, command[-1].split("/"))) for command in commands)
        assert shards == [(k, len(commands)) for k in range(1, len(commands) + 1)]
        assert {tuple(command[:-1]) for command in commands} == {
            ("lrwd-sweep", "compare", "adam", "adamw", "--shard")
        }
