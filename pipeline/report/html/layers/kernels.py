"""How the file of a stage runs: tables for its details."""

from collections.abc import Sequence

from pipeline.base.formatting import count_text, few, interval_text
from pipeline.records.parts.kernels import Kernels
from pipeline.report.html.views import Cell, Table


def kernel_tables(kernels: Kernels) -> list[Table]:
    """The operators as ONNX Runtime runs them, the alarms, and what is computed in floats, as far as there are some."""
    operators: list[Sequence[Cell]] = [
        [
            row.operator,
            f"{row.count:,}",
            "integers" if row.integer else "floats" if row.macs != 0 else "-",
            "-" if row.macs is None else count_text(row.macs),
            "-" if row.time_share is None else f"{row.time_share:.1%}",
        ]
        for row in kernels.operators
    ]
    columns = ["operator", "nodes", "sums", "MACs", "share of time"]
    tables = [Table(f"In ONNX Runtime here: {kernels_text(kernels)}", columns, operators, frozenset({2}))]
    alarms: list[Sequence[Cell]] = [[a.pattern, few(a.nodes), a.why, a.remedy] for a in kernels.alarms]
    if alarms:
        tables.append(Table("What slows it", ["pattern", "nodes", "why", "what to do"], alarms, frozenset({1, 2, 3})))
    floats: list[Sequence[Cell]] = [[row.operator, few(row.nodes), row.why] for row in kernels.floats]
    if floats:
        tables.append(Table("Computed in floats", ["operator", "nodes", "why"], floats, frozenset({1, 2})))
    return tables


def kernels_text(kernels: Kernels) -> str:
    """The share of MACs in integers and the time, beside that of the file that came in."""
    share = "share of MACs in integers not known" if kernels.integer_macs is None else ""
    share = share or f"{kernels.integer_macs:.0%} of MACs in integers"
    ratio = f"{interval_text(kernels.ratio, 2)} of the time of what came in" if kernels.ratio else "not timed"
    return f"{share}, {ratio}"
