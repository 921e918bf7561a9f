"""Specifications for tests: strategies for any, and one on the digits."""

from typing import Any

from hypothesis import strategies as st

from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import DecayRule, MomentumForm, Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.catalog import AUGMENTATIONS, NETWORKS, PRECISIONS, DataSet
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task

LATTICE = Lattice((0.1, 0.2), (0.0, 0.01))

positive = st.floats(1e-12, 1e6)
caps = st.none() | st.floats(allow_nan=False, allow_infinity=False)
axes = st.lists(positive, min_size=1, max_size=4).map(tuple)
lattices = st.builds(Lattice, axes, axes)
KNOWN: Any = {"net": NETWORKS, "precision": PRECISIONS, "augment": AUGMENTATIONS}
seeds = st.sets(st.integers(0, 20), min_size=1, max_size=4).map(lambda found: tuple(sorted(found)))
_trainings = st.builds(
    Task,
    epochs=st.integers(1, 2000),
    batch_size=st.integers(2, 400),
    schedule=st.sampled_from(Schedule),
    t_0=st.none() | st.integers(1, 50),
    t_mult=st.integers(1, 3),
    eta_min=st.floats(0, 0.5),
    momentum_form=st.sampled_from(MomentumForm),
    beta1=st.none() | st.floats(1e-9, 0.999),  # schedule-free has none of 0
    eps=st.none() | st.floats(0, 1),
    data=st.just("digits"),
    **dict.fromkeys(("momentum", "beta2"), st.none() | st.floats(0, 0.999)),
    **dict.fromkeys(("nesterov", "decay_all"), st.booleans()),
    **{name: st.sampled_from(sorted(known)) for name, known in KNOWN.items()},
)
trainings = st.builds(lambda task, n: task.changed(warmup=n % task.epochs), _trainings, st.integers(0, 5))
elsewhere = st.just(Task(net="mlp", data="folder:/nowhere", sizes=DataSet(500, 9, 9, 3, (3, 4, 5))))
names = [f"{name}{end}" for name in optimizer_names() for end in ("", ":normalized")]
optimizers = st.sampled_from(names).map(Optimizer.parse)
kinds, metrics = st.sampled_from([Kind.GRID, Kind.TPE]), st.sampled_from(sorted(Task().metrics))
ours = st.builds(
    StudySpec, kinds, optimizers, lattices, seeds, metrics, trainings | elsewhere, given_cap=caps
)
theirs = st.builds(Optimizer, st.none(), st.sampled_from(DecayRule), st.text(min_size=1))
imported = st.builds(
    *(StudySpec, st.just(Kind.IMPORT), optimizers | theirs, lattices, seeds, st.text(min_size=1), st.none()),
    direction=st.sampled_from(Direction),
    given_cap=caps,
)


def spec(**changes: Any) -> StudySpec:
    """Return a study of the digits with `changes` of fields of StudySpec or its task."""
    parts: Any = {"kind": Kind.GRID, "lattice": LATTICE, "seeds": (0, 1), "metric": "val_loss"}
    parts |= {name: changes.pop(name) for name in parts if name in changes}
    optimizer = Optimizer.parse(changes.pop("optimizer", "adamw"))
    return StudySpec(optimizer=optimizer, task=Task(**changes), **parts)
