"""Tables in Markdown."""

from uncertainty_core.report.markdown import markdown_table


def test_columns_are_as_wide_as_their_widest_cell():
    assert markdown_table(["", "ECE"], [["baseline", "0.1"], ["a", "0.05"]]).splitlines() == [
        "|          | ECE  |",
        "| ---      | ---  |",
        "| baseline | 0.1  |",
        "| a        | 0.05 |",
    ]


def test_what_would_end_a_cell_is_escaped():
    assert markdown_table(["a|b"], [["c"]]).splitlines() == [r"| a\|b |", "| ---  |", "| c    |"]


def test_a_table_without_rows_is_its_header():
    assert markdown_table(["a"], []).splitlines() == ["| a   |", "| --- |"]
