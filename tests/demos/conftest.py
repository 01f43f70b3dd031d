"""The demo as a process of its own, on the packaged model's bundle, and a browser to look at its page."""

from pathlib import Path

import pytest
from support.demo import Demo

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def start():
    """A maker of demos; all are ended in the end."""
    demos = []

    def make(*arguments):
        demos.append(Demo(arguments))
        return demos[-1]

    yield make
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.kill()
        demo.process.communicate()


@pytest.fixture(scope="session")
def pi_bundle(bundles):
    return bundles["litert"].path


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, for one file of tests: until it ends, asyncio takes this thread for a running loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()
