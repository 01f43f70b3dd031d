"""Latest frame wins: the reader never works on an old frame while a newer one waits, and losses are counted."""

import threading
import time

from paraedge_runtime import LatestFrame

PATIENCE_S = 30


def test_the_newest_frame_replaces_the_one_that_waits():
    frames = LatestFrame()
    for number in range(5):
        frames.put(number)
    frames.close()
    assert [frame.image for frame in frames] == [4]
    assert frames.dropped == 4


def test_a_frame_knows_when_it_came():
    frames = LatestFrame()
    before = time.monotonic()
    frames.put("image")
    after = time.monotonic()
    frame = next(iter(frames))
    assert before <= frame.arrived_s <= after
    assert frames.dropped == 0


def test_after_close_nothing_comes_in_and_the_reader_ends():
    frames = LatestFrame()
    frames.close()
    frames.put("late")
    assert list(frames) == []
    assert frames.dropped == 0


def test_a_reader_that_waits_gets_the_frame_and_then_the_end():
    frames, seen, got = LatestFrame(), [], threading.Event()

    def read():
        for frame in frames:
            seen.append(frame.image)
            got.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    frames.put("one")
    assert got.wait(PATIENCE_S)
    frames.close()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert seen == ["one"]


def test_every_frame_is_read_or_counted_and_order_is_kept():
    """A camera that never waits, and a reader: nothing is lost silently, nothing comes twice."""
    frames, seen = LatestFrame(), []
    reader = threading.Thread(target=lambda: seen.extend(frame.image for frame in frames), daemon=True)
    reader.start()
    for number in range(20_000):
        frames.put(number)
    frames.close()
    reader.join(PATIENCE_S)
    assert seen == sorted(set(seen))
    assert seen[-1] == 19_999
    assert len(seen) + frames.dropped == 20_000
