"""The assertion that a call is refused as users want it: in one line."""

from collections.abc import Callable
from typing import Any

import pytest

from lrwd_sweep.errors import LrwdError, UsageError


def assert_raises(
    line: str, call: Callable[..., object], *given: Any, error: type[LrwdError] = UsageError, **options: Any
) -> None:
    with pytest.raises(error, match=line) as raised:
        call(*given, **options)
    assert "\n" not in str(raised.value), raised.value
