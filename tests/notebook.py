"""Runs the cells of a notebook without a kernel: what the last expression of a cell gives is what it shows.

`python -m tests.notebook FILE` runs it and writes the outputs into it.
"""

import ast
import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

Output = dict[str, Any]


def run(notebook: dict[str, Any]) -> list[list[Output]]:
    """The outputs of each code cell, run in turn in one namespace and the working directory."""
    namespace: dict[str, Any] = {"__name__": "notebook"}
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [list(_outputs(source, number, namespace)) for number, source in enumerate(sources, 1)]


def _outputs(source: str, number: int, namespace: dict[str, Any]) -> Any:
    tree, stream = ast.parse(source), StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(stream):
        exec(compile(tree, f"<cell {number}>", "exec"), namespace)  # noqa: S102
        value = eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), namespace) if last else None  # noqa: S307
    if stream.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": stream.getvalue().splitlines(keepends=True)}
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        yield {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def main(file: Path) -> None:
    notebook = json.loads(file.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, run(notebook), strict=True), 1):
        cell |= {"outputs": outputs, "execution_count": number}
    text = json.dumps(notebook, indent=1).replace(str(Path.cwd()), ".")
    file.write_text(f"{text}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
