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
axes = st.lists(positive, min_size=1, max_size=4).map(tuple)
lattices = st.builds(Lattice, axes, axes)
seeds = st.sets(st.integers(0, 20), min_size=1, max_size=4).map(lambda found: tuple(sorted(found)))
_trainings = st.builds(
    Task,
    net=st.sampled_from(sorted(NETWORKS)),
    epochs=st.integers(1, 2000),
    batch_size=st.integers(2, 400),
    schedule=st.sampled_from(Schedule),
    t_0=st.none() | st.integers(1, 50),
    t_mult=st.integers(1, 3),
    eta_min=st.floats(0, 0.5),
    momentum=st.none() | st.floats(0, 0.999),
    momentum_form=st.sampled_from(MomentumForm),
    nesterov=st.booleans(),
    beta1=st.none() | st.floats(1e-9, 0.999),  # schedule-free has none of 0
    beta2=st.none() | st.floats(0, 0.999),
    eps=st.none() | st.floats(0, 1),
    decay_all=st.booleans(),
    precision=st.sampled_from(sorted(PRECISIONS)),
    data=st.just("digits"),
    augment=st.sampled_from(sorted(AUGMENTATIONS)),
)
trainings = st.builds(lambda task, n: task.changed(warmup=n % task.epochs), _trainings, st.integers(0, 5))
elsewhere = st.builds(
    Task, net=st.just("mlp"), data=st.just("folder:/nowhere"), sizes=st.just(DataSet(500, 9, 9, 3, (3, 4, 5)))
)
optimizers = st.builds(
    lambda name, end: Optimizer.parse(name + end),
    st.sampled_from(optimizer_names()),
    st.sampled_from(["", ":normalized"]),
)
ours = st.builds(
    StudySpec,
    st.sampled_from([Kind.GRID, Kind.TPE]),
    optimizers,
    lattices,
    seeds,
    st.sampled_from(sorted(Task().metrics)),
    trainings | elsewhere,
    given_cap=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
imported = st.builds(
    StudySpec,
    st.just(Kind.IMPORT),
    optimizers | st.builds(Optimizer, st.none(), st.sampled_from(DecayRule), st.text(min_size=1)),
    lattices,
    seeds,
    st.text(min_size=1),
    st.none(),
    st.sampled_from(Direction),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


def spec(**changes: Any) -> StudySpec:
    """Return a study of the digits with `changes` of fields of StudySpec or its task."""
    mine = {name: changes.pop(name) for name in ("kind", "lattice", "seeds", "metric") if name in changes}
    optimizer = Optimizer.parse(changes.pop("optimizer", "adamw"))
    parts: dict[str, Any] = {"kind": Kind.GRID, "lattice": LATTICE, "seeds": (0, 1), "metric": "val_loss"}
    return StudySpec(optimizer=optimizer, task=Task(**changes), **parts | mine)
