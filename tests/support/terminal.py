"""A terminal of some columns around a call in this process, and what stands on its screen afterwards."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading

from paraedge.cli import output

_CODES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


def written_in_terminal(call, columns=80):
    """Everything that ``call()`` writes to the terminal that stdout and stderr are meanwhile, as it was written."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    pieces = []

    def read():
        with contextlib.suppress(OSError):  # the last one who wrote has closed it
            while piece := os.read(master, 65536):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    saved = [os.dup(1), os.dup(2)]
    forget_consoles()
    try:
        for number in (1, 2):
            os.dup2(slave, number)
        with (
            os.fdopen(os.dup(1), "w", buffering=1) as out,
            os.fdopen(os.dup(2), "w", buffering=1) as err,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            call()
    finally:
        forget_consoles()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(slave)
    reader.join()
    os.close(master)
    return b"".join(pieces).decode()


def forget_consoles():
    """They know where they write, and how wide that is."""
    if output._progress_console.cache_info().currsize:
        output._progress_console().file.close()
    output.console.cache_clear()
    output._progress_console.cache_clear()


def screen(written):
    """The lines that stand there at the end: of the control codes those that erase and move are obeyed."""
    lines, row = [""], 0
    column = 0
    for numbers, code, back, new, text in _CODES.findall(written):
        if code == "K":
            lines[row] = ""
        elif code == "A":
            row = max(0, row - int(numbers or 1))
        elif back:
            column = 0
        elif new:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
    return [line.rstrip() for line in lines]


def on_screen(call, columns=80):
    """What a person sees when ``call()`` has returned."""
    return screen(written_in_terminal(call, columns))


def main(*arguments):
    """The command line in this process; returns its exit status."""
    from paraedge.cli.main import main as command_line

    before, sys.argv = sys.argv, ["paraedge", *map(str, arguments)]
    try:
        command_line()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
