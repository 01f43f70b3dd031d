"""The page in headless Chromium, as a person uses it."""

import re

import pytest
from playwright.sync_api import expect
from support.demo import PATIENCE_S, until


@pytest.fixture
def demo(pi_bundle, start):
    return start("--bundle", pi_bundle, "--port", 0, "--budget-ms", 300)


@pytest.fixture
def page(browser, demo):
    """The page, live; anything that it complains of fails the test."""
    complaints = []
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(PATIENCE_S * 1e3)
    expect.set_options(timeout=PATIENCE_S * 1e3)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(demo.url)
    expect(opened.locator("#status")).to_have_text("live")
    expect(opened.locator("#branches li")).to_have_count(9)
    yield opened
    opened.close()
    assert not complaints


def outcomes(page):
    return page.locator("#branches li").evaluate_all("rows => rows.map(row => row.dataset.outcome)")


def number(page, selector):
    return float(re.match(r"[\d.]+", page.locator(selector).inner_text())[0])


def test_images_and_answers_change(page):
    first = page.locator("#preview").get_attribute("src")
    assert first.startswith("data:image/png")
    until(lambda: page.locator("#preview").get_attribute("src") != first, "the image stays")
    expect(page.locator("#confidence")).to_contain_text("% confidence")
    expect(page.locator("#truth")).to_contain_text(re.compile("right|is "))
    expect(page.locator("#verdict")).to_contain_text("8 of 8 branches")
    assert page.locator("#latency-plot").evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value)"
    )


def test_branches_follow_the_budget(page):
    until(lambda: outcomes(page) == ["stem", *["used"] * 8], "not every branch runs")
    page.locator("#budget").fill("0")  # 1 ms
    expect(page.locator("#deadline-text")).to_have_text("deadline 1.0 ms")
    until(lambda: {"dropped", "late"} & set(outcomes(page)), "no branch is left out")
    until(lambda: number(page, "#misses") > 0, "no miss is counted")
    page.locator("#budget").fill("250")
    expect(page.locator("#deadline-text")).to_have_text("deadline 316 ms")
    until(lambda: outcomes(page) == ["stem", *["used"] * 8], "the branches do not come back")


def test_policy_load_and_threads(page):
    page.get_by_label("static", exact=True).check(force=True)
    page.locator("#count").fill("3")
    expect(page.locator("#verdict")).to_contain_text("3 of 8 branches")
    page.get_by_label("anytime").check(force=True)
    expect(page.locator("#verdict")).to_contain_text("8 of 8 branches")
    before = number(page, "#misses")
    page.get_by_role("switch").check(force=True)
    page.locator("#threads").fill("1")
    page.wait_for_timeout(2000)
    expect(page.get_by_role("switch")).to_be_checked()
    expect(page.locator("#threads-text")).to_have_text("1")
    assert number(page, "#misses") <= before + 2  # 300 ms is plenty, hog or not


def test_the_keyboard_is_enough(page):
    page.locator("#budget").focus()
    page.keyboard.press("Home")
    expect(page.locator("#budget-text")).to_have_text("1.0 ms")
    page.keyboard.press("End")
    for name in ("#threads", "[name=policy]:checked", "#load", "#freeze"):
        for _ in range(3):  # the slider of the policy static is in between
            if page.evaluate("name => document.activeElement.matches(name)", name):
                break
            page.keyboard.press("Tab")
        assert page.evaluate("name => document.activeElement.matches(name)", name), name
    page.keyboard.press("Enter")
    expect(page.locator("#freeze")).to_have_attribute("aria-pressed", "true")
    still = page.locator("#preview").get_attribute("src")
    page.wait_for_timeout(500)
    assert page.locator("#preview").get_attribute("src") == still


def test_every_control_has_a_name_for_a_screen_reader(page):
    names = page.locator("input, button").evaluate_all(
        "all => all.map(one => one.labels?.[0]?.textContent.trim() || one.textContent)"
    )
    assert len(names) >= 8
    assert all(names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for name in ("#preview", "#label", "#budget", ".switch", "#latency-plot"):
        assert page.locator(name).bounding_box()["width"] > 30, name


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_notes_of_branches_keep_clear_of_the_deadline(page, width):
    page.set_viewport_size({"width": width, "height": 740})
    page.get_by_label("static", exact=True).check(force=True)
    page.locator("#count").fill("3")
    notes = page.locator("#branches span:not([hidden])")
    expect(notes).to_have_count(5)
    page.locator("#freeze").click()
    line = page.locator("#deadline").bounding_box()
    for note in notes.all():
        box = note.bounding_box()
        assert box["x"] + box["width"] <= line["x"] or line["x"] + line["width"] <= box["x"]
        assert note.evaluate("note => note.scrollWidth <= note.clientWidth"), note.inner_text()  # nothing is cut off


def test_the_page_comes_back_when_the_server_does(page, demo, pi_bundle, start):
    demo.stop()
    expect(page.locator("#status")).to_have_text("reconnecting")
    start("--bundle", pi_bundle, "--port", demo.port, "--budget-ms", 123)
    expect(page.locator("#status")).to_have_text("live")
    expect(page.locator("#budget-text")).to_have_text(re.compile("12[0-9] ms"))


def test_a_recording_is_shown_without_controls(browser, pi_bundle, start, tmp_path):
    recorded = start("--bundle", pi_bundle, "--headless", "--frames", 10, "--record", tmp_path / "out.jsonl")
    assert recorded.process.wait(PATIENCE_S) == 0
    page = browser.new_page()
    page.goto(start("--replay", tmp_path / "out.jsonl", "--port", 0).url)
    expect(page.locator("#status")).to_have_text("replay")
    expect(page.locator("#verdict")).to_contain_text("of 8 branches")
    expect(page.locator("#budget")).to_be_disabled()
    expect(page.locator("#no-preview")).to_have_text("a recording keeps no images")
    page.close()


def test_a_page_on_another_address_needs_the_token(browser, pi_bundle, start):
    demo = start("--bundle", pi_bundle, "--port", 0, "--host", "127.0.0.1")
    page = browser.new_page()
    assert page.goto(demo.url.split("?")[0]).status == 403
    page.goto(demo.url)
    expect(page.locator("#status")).to_have_text("live")
    assert "token" not in page.url
    page.close()


def test_white_space_before_the_deadline_has_a_reason(page):
    """The margin for the return is drawn, and beside every bar its predicted time."""
    until(lambda: page.locator("#branches u:visible").count() > 0, "nothing is predicted")
    until(lambda: page.locator("#margin").is_visible(), "there is no margin")
    margin, deadline = (page.locator(name).bounding_box() for name in ("#margin", "#deadline"))
    assert margin["x"] < deadline["x"]
    expect(page.locator("#margin-text")).to_contain_text(re.compile(r"\d ms reserved for the return"))
