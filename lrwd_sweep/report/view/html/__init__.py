"""The report as one HTML file that loads nothing, opens from anywhere and reads without its script."""

from lrwd_sweep.report.view.html.page import html

__all__ = ["html"]
