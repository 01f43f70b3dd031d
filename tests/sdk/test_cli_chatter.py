"""What engines print about themselves stays off the terminal, and its end can be quoted."""

# ruff: noqa: T201 - printing is what is tested here

import logging
import os
import subprocess
import sys
import threading
import warnings

import pytest

from paraedge.cli._chatter import captured_chatter

WAYS = {
    "print": lambda: print("noise"),
    "print to stderr": lambda: print("noise", file=sys.stderr),
    "descriptor 1": lambda: os.write(1, b"noise\n"),
    "descriptor 2": lambda: os.write(2, b"noise\n"),
    "another process": lambda: subprocess.run(["echo", "noise"], check=True),
    "another thread": lambda: _in_thread(lambda: print("noise")),
}


def _in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("say", WAYS.values(), ids=WAYS)
def test_nothing_reaches_the_terminal_and_the_tail_has_it(capfd, say):
    with captured_chatter() as chatter:
        say()
        tail = chatter.tail()
    assert tail == "noise"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("say", WAYS.values(), ids=WAYS)
def test_afterwards_everything_is_printed_again(capfd, say):
    with captured_chatter():
        pass
    say()
    assert "".join(capfd.readouterr()) == "noise\n"


def test_what_was_printed_before_stays_in_its_place(capfd):
    print("before", end="")
    with captured_chatter() as chatter:
        print("inside")
        assert chatter.tail() == "inside"
    print(" after")
    assert capfd.readouterr().out == "before after\n"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_passes_and_all_is_put_back(capfd, error):
    stdout, stderr, descriptors = sys.stdout, sys.stderr, len(os.listdir("/proc/self/fd"))

    def fail():
        with captured_chatter():
            print("noise")
            raise error("inside")

    with pytest.raises(error, match="inside"):
        fail()
    assert (sys.stdout, sys.stderr) == (stdout, stderr)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_the_tail_can_be_read_while_an_error_passes(capfd):
    with captured_chatter() as chatter:
        try:
            os.write(2, b"E: unsupported operator\n")
            raise ValueError
        except ValueError:
            assert chatter.tail() == "E: unsupported operator"
    assert capfd.readouterr() == ("", "")


def test_blocks_nest(capfd):
    with captured_chatter() as outer:
        print("one")
        with captured_chatter() as inner:
            print("two")
            assert inner.tail() == "two"
        print("three")
        assert outer.tail() == "one | three"
    print("four")
    assert capfd.readouterr() == ("four\n", "")


@pytest.mark.parametrize(
    ("written", "lines", "tail"),
    [
        (b"", 3, ""),
        (b"\n\n", 3, ""),
        (b"one", 3, "one"),
        (b"1\n2\n3\n4\n", 3, "2 | 3 | 4"),
        (b"1\n2\n3\n4\n", 1, "4"),
        (b"bad \xff\xfe bytes", 3, "bad \ufffd\ufffd bytes"),
        (b"x" * 1000, 3, "x" * 400),
    ],
)
def test_tail(capfd, written, lines, tail):
    with captured_chatter() as chatter:
        os.write(1, written)
        found = chatter.tail(lines)
    assert found == tail


def test_text_the_terminal_cannot_encode_is_no_error(capfd):
    with captured_chatter() as chatter:
        print("\ud800 lone surrogate")
        assert "lone surrogate" in chatter.tail()


def test_warnings_are_silent_inside_only(capfd):
    with captured_chatter():
        warnings.warn("noise", stacklevel=1)
    with pytest.warns(UserWarning, match="signal"):
        warnings.warn("signal", stacklevel=1)


@pytest.mark.parametrize("before", [logging.NOTSET, logging.ERROR])
def test_logging_below_error_is_silent_inside_only(caplog, before):
    logger = logging.getLogger("paraedge.test")
    logging.disable(before)
    try:
        with captured_chatter():
            logger.warning("noise")
            logger.error("an error is no chatter")
        assert logging.root.manager.disable == before
    finally:
        logging.disable(logging.NOTSET)
    logger.warning("signal")
    expected = ["signal"] if before == logging.ERROR else ["an error is no chatter", "signal"]
    assert [record.message for record in caplog.records if record.message != "noise"] == expected
    assert "noise" not in caplog.text
