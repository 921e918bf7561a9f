"""The formats of a report, by name; known without loading the views."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """How a report is written; all but the table are text for a file or another program."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"
    JUNIT = "junit"
    HTML = "html"
