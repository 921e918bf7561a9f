"""What was measured before on this machine: a small file in the user's cache, and no harm if it is lost."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

FILE = "engines.json"


def cache_folder() -> Path:
    """lrwd-sweep in the user's cache."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "lrwd-sweep")


@dataclass(frozen=True, slots=True)
class ChoiceCache:
    """Names of engines by what they were chosen for. A file that cannot be read or written is none."""

    path: Path = field(default_factory=lambda: cache_folder() / FILE)

    def find(self, key: str) -> str | None:
        """What was chosen, or None."""
        found = self._read().get(key)
        return found if isinstance(found, str) else None

    def keep(self, key: str, engine: str) -> None:
        """Remember a choice, if that is possible."""
        text = json.dumps(self._read() | {key: engine}, indent=1, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=self.path.parent, delete=False, encoding="utf-8") as file:
                file.write(text)
            os.replace(file.name, self.path)  # never half written, whoever else writes
        except OSError:
            pass

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
