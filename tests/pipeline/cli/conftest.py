"""The records made by hand that the tests of the report have."""

from tests.pipeline.report.conftest import comparison, record  # noqa: F401
