import random

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.report.markdown import LONGEST_VALUE, MOST_ITEMS, block, capped, code, escaped, items, table

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SPECIAL = "|\\`*_[]()<>&$~#+-=.!:\"' \n\tab1é"


def texts(markdown: str) -> list[str]:
    """What is read of each inline part, with no markup left in it but a span around a dollar."""
    found = []
    for token in GITHUB.parse(markdown):
        if token.type == "inline":
            children = token.children or []
            markup = {c.content if c.type == "html_inline" else c.type for c in children}
            assert markup <= {"text", "text_special", "<span>", "</span>"}, token.content
            found.append("".join(c.content for c in children if c.type != "html_inline"))
    return found


def hostile(count: int) -> list[str]:
    draw = random.Random(0)
    made = ["".join(draw.choices(SPECIAL, k=draw.randint(1, 30))) for _ in range(count)]
    plain = ["<script>alert(1)</script>", "a | b", "\\|", "[x](http://y)", "![x](y)", "*a* _b_ __c__", "1. x", "# x"]
    return [
        text for text in [*made, *plain, "| --- |", "&lt;", "[x]: http://y", "- [ ] x", "---", "```"] if text.split()
    ]


def test_any_text_stays_what_it_is_in_a_cell_and_in_a_list() -> None:
    for text in hostile(1000):
        assert texts("".join(table(["a", "b"], [[escaped(text), "end"]]))) == ["a", "b", " ".join(text.split()), "end"]
        markdown = "".join(items("said", [text, "end"]))
        assert texts(markdown) == ["said", " ".join(text.split()), "end"]
        assert [t.type for t in GITHUB.parse(markdown)].count("list_item_open") == 2


def test_names_and_intervals_stay_readable_and_a_very_long_value_is_shortened() -> None:
    assert escaped("size_bytes is 3,749, the limit 40") == "size_bytes is 3,749, the limit 40"
    assert len(escaped("x" * 10_000)) <= LONGEST_VALUE + 2
    assert escaped("x" * 10_000).endswith(" …")


@pytest.mark.parametrize("text", ["a/b c.onnx", "a`b", "``", "`a", "<b>|"])
def test_code_holds_any_path(text: str) -> None:
    (inline,) = [t for t in GITHUB.parse(code(text)) if t.type == "inline"]
    (span,) = inline.children or []
    assert (span.type, span.content) == ("code_inline", text)


@pytest.mark.parametrize("text", ["shrink run x", "```\nout\n```", "````"])
def test_a_block_holds_any_text(text: str) -> None:
    (fence,) = GITHUB.parse("".join(block(text, "sh")))
    assert (fence.type, fence.info, fence.content) == ("fence", "sh", text + "\n")


def test_a_long_list_says_how_much_is_left_out() -> None:
    found = texts("".join(items("said", [f"warning {i}" for i in range(MOST_ITEMS + 7)])))
    assert (len(found), found[-1]) == (MOST_ITEMS + 2, "and 7 more")


def test_what_fits_is_whole() -> None:
    assert capped(["a" * 50, "b" * 50], longest=100) == "a" * 50 + "b" * 50


@pytest.mark.parametrize("longest", range(200, 700, 7))
def test_a_cut_is_between_rows_and_blocks_and_is_said(longest: int) -> None:
    rows = [[f"row {i}", "x" * 20] for i in range(10)]
    whole = [*table(["a", "b"], rows), *block("command " * 20), *items("said", ["one", "two"])]
    made = capped(whole, longest)
    assert len(made) <= longest
    if made == "".join(whole):
        return
    assert made.endswith("record.json.*\n")
    tokens: list[Token] = GITHUB.parse(made)
    inside = [t.content for t in tokens if t.type == "inline"]
    assert "Cut here" in inside[-1]
    cells = [text for text in inside if text.startswith("row ")]
    assert inside.count("x" * 20) == len(cells)
    for fence in (t for t in tokens if t.type == "fence"):
        assert fence.content == "command " * 20 + "\n"
