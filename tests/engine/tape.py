"""A CUDA graph in the host's memory: the operators of a program are recorded once, and replayed.

A replay calls the operators again on the same tensors and generators, and writes their results in place.
Recording changes nothing, and refuses what CUDA refuses: to return a value to the host.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lrwd_sweep.engine.graph import Program

TELLS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "item")


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A record of the operators called while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.own: list[Tensor] = []  # made here; kept, so that no address is used twice
        self.places: set[int] = set()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # address → tensor, and its former value
        self.states: dict[torch.Generator, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.__name__.split(".")[0] in TELLS:
            raise RuntimeError(f"the host asked for a value: {func}")
        given = dict(kwargs or {})
        leaves = tree_leaves((args, given))
        for leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in self.places:
                whole = leaf.as_strided((leaf.untyped_storage().nbytes() // leaf.itemsize,), (1,), 0)
                self.before.setdefault(leaf.untyped_storage().data_ptr(), (whole, whole.clone()))
            if isinstance(leaf, torch.Generator):
                self.states.setdefault(leaf, leaf.get_state())
        out = func(*args, **given)
        held = {leaf.untyped_storage().data_ptr() for leaf in leaves if isinstance(leaf, Tensor)}
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        new = [leaf for leaf in made if leaf.untyped_storage().data_ptr() not in held]
        self.own += new
        self.places |= {leaf.untyped_storage().data_ptr() for leaf in new}
        self.calls.append((func, args, given, made))
        return out

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for tensor, value in self.before.values():
            tensor.copy_(value)
        for stream, state in self.states.items():
            stream.set_state(state)

    @torch.inference_mode()
    def replay(self) -> None:
        for func, args, kwargs, made in self.calls:
            found = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
            for place, value in zip(made, found, strict=True):
                if place.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
                    place.copy_(value)


@torch.inference_mode()
def record(program: Program) -> Callable[[int], None]:
    """Record as `graph.capture` does, in the host's memory."""
    tapes: dict[int, Tape] = {}
    for count in {program.size, 1}:
        with Tape() as tapes[count]:
            program.steps(count)
    return lambda count: tapes[count].replay()
