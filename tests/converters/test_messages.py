"""What is kept of what a backend says of its failure: one line, without colours, without the dump of a graph."""

import pytest

from paraedge_converters.backends import in_one_line, lowering_with
from paraedge_runtime.errors import ConversionError

GRAPH = "graph():\n    %x : [num_users=1] = placeholder[target=x]\n" * 50


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("no such operator", "no such operator"),
        ("\x1b[31mFailed\x1b[0m to export\x1b[1;4m it\x1b[m\n\n" + GRAPH, "Failed to export it"),
        ("one\ntwo\tthree\r\n\r\nfour", "one two three"),
        ("\n\n  \n", ""),
        ("bell\a and \x1b]0;title\x07", "bell and ]0;title"),
        ("word " * 100, "word " * 59 + "…"),
    ],
)
def test_a_message_is_one_line(said, kept):
    assert in_one_line(said) == kept
    assert len(in_one_line(said)) <= 300


def test_a_graph_with_colours_stays_out_of_the_error():
    with pytest.raises(ConversionError) as found, lowering_with("torch"):
        raise RuntimeError(f"\x1b[96mDynamoError\x1b[0m: data-dependent branch\n\n{GRAPH}")
    assert str(found.value) == "lowering with torch failed: DynamoError: data-dependent branch"


def test_the_cause_is_told_where_an_exporter_wraps_it():
    error = RuntimeError("Failed to export. Next steps: report it")
    error.__cause__ = ValueError("data-dependent branch")
    with pytest.raises(ConversionError) as found, lowering_with("ONNX"):
        raise error
    assert str(found.value) == "lowering with ONNX failed: data-dependent branch"
