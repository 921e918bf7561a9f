"""The files beside somebody's file, imported by their short names though another folder may have the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

from lrwd_sweep.spec.live_code import changed
from lrwd_sweep.spec.own_imports import Source


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What is to be found in one folder."""

    folder: str
    sources: Sequence[Source]
    apart: dict[str, ModuleType] = field(default_factory=dict)  # whose names others have in `sys.modules`

    def find(self, source: Source) -> ModuleType | None:
        """What was imported from a source, be it one of these; None where nothing was."""
        for found in (self.apart.get(source.name), sys.modules.get(source.name)):
            if getattr(found, "__file__", None) == source.path:
                return found
        return None

    @contextmanager
    def present(self) -> Iterator[None]:
        """Their names stand for them within, and afterwards for what they stood for."""
        others = {
            one.name: module
            for one in self.sources
            if (module := sys.modules.get(one.name)) is not None
            and getattr(module, "__file__", None) != one.path
        }
        if not others:
            yield
            return
        for name in others:
            del sys.modules[name]
        sys.modules.update(self.apart)
        sys.path.insert(0, self.folder)
        try:
            yield
        finally:
            sys.path.remove(self.folder)
            self.apart.update({name: sys.modules[name] for name in others if name in sys.modules})
            sys.modules.update(others)

    def forget_changed(self) -> None:
        """Have them all imported anew where one of them has changed since it was."""
        there = {one.name: (module, one.text) for one in self.sources if (module := self.find(one))}
        if changed(list(there.values())):
            for name in there:
                del sys.modules[name]
