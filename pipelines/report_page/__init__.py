"""The report of a run: one HTML page that says what happened, what it cost in privacy, and whether to use the model."""

from pipelines.report_page.found import Found
from pipelines.report_page.page import render

__all__ = ["Found", "render"]
