"""report.html of a run and of a comparison."""

from pipeline.report.html.page import write_comparison as write_comparison
from pipeline.report.html.page import write_report as write_report
