"""Draws docs/images/raspberry-pi-demo.png: the demo's page at a moment when some branches were left out.

.venv/bin/python docs/draw_demo.py pi.paraedge
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "images" / "raspberry-pi-demo.png"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
# A right answer in time, of some of the branches; of the others one was too late, two were not started.
MOMENT = """() => {
  const is = outcome => document.querySelectorAll(`#branches [data-outcome=${outcome}]`).length;
  return is("used") > 2 && is("dropped") > 1 && is("late") > 0
    && truth.dataset.right === "true" && verdict.dataset.late === "false";
}"""


def main(bundle: str) -> None:
    """Start the demo, lower the budget step by step, wait for the moment."""
    command = [sys.executable, "-m", "paraedge_demo", "--bundle", bundle, "--port", "0", "--budget-ms", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo, sync_playwright() as playwright:
        url = demo.stdout.readline().split()[1]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1120, "height": 860})
        page.goto(url)
        for place in (90, 70, 55, 45, 38):  # from 8 ms down
            page.wait_for_timeout(3500)
            page.locator("#budget").fill(str(place))
        page.wait_for_timeout(3000)
        page.wait_for_function(MOMENT, timeout=120_000, polling=20)
        page.evaluate("document.activeElement.blur(); document.getElementById('freeze').click()")
        page.wait_for_timeout(300)
        page.evaluate("document.getElementById('freeze').setAttribute('aria-pressed', false)")
        page.screenshot(path=OUT, full_page=True)
        browser.close()
        demo.terminate()


if __name__ == "__main__":
    main(sys.argv[1])
