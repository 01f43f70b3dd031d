"""Draws docs/images/raspberry-pi-demo.png: the demo's page at a moment when some branches were left out.

.venv/bin/python docs/draw_demo.py pi.paraedge
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import TimeoutError, sync_playwright

OUT = Path(__file__).parent / "images" / "raspberry-pi-demo.png"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
# A right prediction in time, of some of the branches; others were not started, since they would have been too late.
MOMENT = """() => {
  const is = outcome => document.querySelectorAll(`#branches [data-outcome=${outcome}]`).length;
  return is("used") > 2 && is("dropped") > 1
    && truth.dataset.right === "true" && verdict.dataset.late === "false";
}"""


def main(bundle: str) -> None:
    """Start the demo, lower the budget step by step until the moment comes."""
    command = [sys.executable, "-m", "paraedge_demo", "--bundle", bundle, "--port", "0", "--budget-ms", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo, sync_playwright() as playwright:
        try:
            url = demo.stdout.readline().split()[1]
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            page = browser.new_page(viewport={"width": 1120, "height": 860})
            page.goto(url)
            page.wait_for_timeout(4000)  # the device's speed is known after twenty requests
            for place in range(100, 15, -5):
                page.locator("#budget").fill(str(place))
                page.wait_for_timeout(1500)
                with contextlib.suppress(TimeoutError):
                    page.wait_for_function(MOMENT, timeout=5_000, polling=20)
                    break
            else:
                sys.exit("no request matched; the machine may be busy, run it again")
            page.evaluate("document.activeElement.blur(); document.getElementById('freeze').click()")
            page.wait_for_timeout(300)
            page.evaluate("document.getElementById('freeze').setAttribute('aria-pressed', false)")
            page.screenshot(path=OUT, full_page=True)
            browser.close()
        finally:
            demo.terminate()


if __name__ == "__main__":
    main(sys.argv[1])
