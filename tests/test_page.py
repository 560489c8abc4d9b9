"""The page in a real Chromium, as people use it: with Debian's `chromium` and `chromium-driver`."""

import base64
import contextlib
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from serving import command

pytestmark = pytest.mark.any_paddle

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = pathlib.Path(os.environ.get("CAIT_SCREENSHOTS", ROOT / "output" / "screenshots"))
FLAGS = (
    "--headless",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the page must need nobody else
)
DESKTOP, PHONE = (1000, 900), (390, 844)
ARROW_LEFT, ARROW_RIGHT, HOME, TAB = "\ue012", "\ue014", "\ue011", "\ue004"  # WebDriver's names of keys
SECONDS = 30  # for the page to show something


@pytest.fixture(scope="session", autouse=True)  # before the fixtures that train the demo
def _chromium():
    if CHROMIUM and DRIVER:
        return
    reason = "needs chromium and chromedriver (Debian: chromium, chromium-driver)"
    if os.environ.get("CAIT_REQUIRE_BROWSER"):
        pytest.fail(f"CAIT_REQUIRE_BROWSER is set, and this {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def address(demo_bundle):
    with command(demo_bundle) as (address, _):
        yield address


@contextlib.contextmanager
def browser(profile, size=DESKTOP, language="en", flags=()):
    """A fresh browser; what it complains about at the end is an error."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", *flags):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        if size == PHONE:
            screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 2, "mobile": True}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        yield driver
        complaints = [entry["message"] for entry in driver.get_log("browser")]
        assert not [text for text in complaints if "422 (Unprocessable" not in text], complaints
    finally:
        driver.quit()


def all_of(driver, selector):
    from selenium.webdriver.common.by import By

    return driver.find_elements(By.CSS_SELECTOR, selector)


def one(driver, selector):
    (found,) = all_of(driver, selector)
    return found


def wait(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, SECONDS).until(lambda _: condition())


def choose(driver, *paths):
    one(driver, "#files").send_keys("\n".join(map(str, paths)))


def move(driver, slider, keys):
    """Moves a slider by its keys, as a person with a keyboard does."""
    one(driver, slider).send_keys(*keys)


def pixels(driver, selector):
    """Of a canvas, uint8 [height, width, 4]."""
    script = (
        "const c = document.querySelector(arguments[0]);"
        "return [c.height, c.width, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]"
    )
    height, width, values = driver.execute_script(script, selector)
    return np.array(values, "uint8").reshape(height, width, 4)


def screenshot(driver, name):
    """Keeps a picture of the whole page."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    metrics = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": metrics["width"], "height": metrics["height"], "scale": 1}
    found = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path = SCREENSHOTS / f"{name}.png"
    path.write_bytes(base64.b64decode(found["data"]))
    print(f"screenshot: {path}")


@pytest.fixture
def profile(tmp_path):
    return tmp_path / "profile"


def digit(all_digits, name):
    return sorted((all_digits / "val" / name).glob("*.png"))[0]


def test_a_digit_is_read_and_its_attention_looked_at(address, all_digits, profile):
    with browser(profile) as driver:
        driver.get(address)
        wait(driver, lambda: "cait_digits · 10 classes" in one(driver, "#model").text)
        choose(driver, digit(all_digits, "four"))
        wait(driver, lambda: "four" in one(driver, "#status").text)
        assert one(driver, ".best-name").text == "four"
        bars = [
            (item.text.split("\n"), item.find_element("css selector", ".track div"))
            for item in all_of(driver, ".classes li")
        ]
        assert len(bars) == 5 and bars[0][0] == ["four", one(driver, ".best-prob").text]
        shares = [float(words[1].rstrip("%")) for words, _ in bars]
        assert shares == sorted(shares, reverse=True) and 50 < shares[0] <= 100
        track = one(driver, ".classes li:first-child .track").rect["width"]
        assert bars[0][1].rect["width"] == pytest.approx(track * shares[0] / 100, abs=2)
        assert "ms in the service" in one(driver, ".time").text

        seen, overlay = pixels(driver, ".seen"), pixels(driver, ".overlay")
        with Image.open(digit(all_digits, "four")) as image:
            expected = np.asarray(image.convert("L").resize((448, 448), Image.Resampling.NEAREST))
        assert np.abs(seen[..., 0].astype(int) - expected).max() <= 1  # what the model sees, from pixel to pixel
        assert (seen[..., 0] == seen[..., 2]).all() and (overlay[..., 0] != overlay[..., 2]).any()  # grey and colours
        looks = [overlay]
        move(driver, ".head", [ARROW_RIGHT])
        assert one(driver, ".head-out").text == "1 of 4"
        looks.append(pixels(driver, ".overlay"))
        move(driver, ".layer", [ARROW_LEFT])
        assert one(driver, ".layer-out").text == "1 of 2"
        looks.append(pixels(driver, ".overlay"))
        for left, right in zip(looks, looks[1:]):
            assert np.abs(left.astype(int) - right).max() > 50
        label = one(driver, ".overlay").get_attribute("aria-label")
        assert "class attention of layer 1, head 1 of 4; strongest in patch row" in label
        move(driver, ".opacity", [HOME])
        bare = pixels(driver, ".overlay")[..., :3].astype(int)
        assert np.abs(bare - expected[..., None]).max() <= 1
        move(driver, ".opacity", [ARROW_RIGHT] * 14)
        move(driver, ".layer", [ARROW_RIGHT])
        move(driver, ".head", [HOME])
        np.testing.assert_array_equal(pixels(driver, ".overlay"), overlay)  # back where it began
        screenshot(driver, "page")


def test_a_wrong_file_is_told_and_the_others_are_classified(address, all_digits, profile, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no image either")
    with browser(profile) as driver:
        driver.get(address)
        choose(driver, tmp_path / "notes.txt")
        wait(driver, lambda: "“notes.txt” is not an image. Choose a JPEG" in one(driver, "#status").text)
        assert "“notes.txt” is not an image" in one(driver, ".problem").text
        one(driver, "#clear").click()
        assert not all_of(driver, ".card")
        choose(driver, tmp_path / "broken.png", digit(all_digits, "seven"), digit(all_digits, "zero"))
        wait(driver, lambda: one(driver, "#status").text == "3 done, 1 could not be classified.")
        (problem,) = [each.text for each in all_of(driver, ".problem") if each.is_displayed()]
        assert problem.endswith(
            "“broken.png” could not be read as an image. Choose a JPEG, PNG, WebP, GIF, BMP or TIFF file."
        )
        assert [each.text for each in all_of(driver, ".best-name") if each.text] == ["zero", "seven"]
        screenshot(driver, "wrong_file")


def test_on_a_phone_in_chinese(address, all_digits, profile):
    with browser(profile, PHONE, "zh-CN") as driver:
        driver.get(address)
        wait(driver, lambda: "cait_digits · 10 个类别" in one(driver, "#model").text)
        assert driver.execute_script("return document.documentElement.lang") == "zh-CN"
        photo = one(driver, "#photo")
        assert photo.get_attribute("capture") == "environment" and photo.rect["width"] > 40
        photo.send_keys(str(digit(all_digits, "two")))
        wait(driver, lambda: "two" in one(driver, "#status").text)
        assert "服务用时" in one(driver, ".time").text and one(driver, ".head-out").text == "全部平均"
        width, inner = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width <= inner == 390  # nothing to be moved sideways
        for element in all_of(driver, "button, .button, input[type=range]"):
            assert not element.is_displayed() or element.rect["height"] >= 28, element.get_attribute("outerHTML")
        screenshot(driver, "phone_chinese")
        one(driver, "#language").click()
        assert "ms in the service" in one(driver, ".time").text
        assert one(driver, "#status").text.startswith(digit(all_digits, "two").name + ": two, ")


def test_with_the_keyboard_and_for_screen_readers(address, all_digits, profile):
    from selenium.webdriver import ActionChains

    with browser(profile) as driver:
        driver.get(address)
        choose(driver, digit(all_digits, "one"))
        wait(driver, lambda: one(driver, "#status").text)
        wait(driver, lambda: all_of(driver, ".body:not([hidden])"))
        reached = []
        for _ in range(12):
            ActionChains(driver).send_keys(TAB).perform()
            name = driver.execute_script(
                "const e = document.activeElement; return e.id || e.className || e.dataset.word"
            )
            reached.append(name)
            if name != "files" and driver.execute_script("return document.activeElement !== document.body"):
                outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", name
        for name in ("language", "files", "clear", "layer", "head", "opacity", "docs"):
            assert name in reached, reached
        assert one(driver, "#status").get_attribute("aria-live") == "polite"
        tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        named = {
            (node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name") and node.get("role")
        }
        names = {role: sorted(name for kind, name in named if kind == role) for role, _ in named}
        assert names["slider"] == ["Head", "Layer", "Overlay"]
        spoken = [one(driver, slider).get_attribute("aria-valuetext") for slider in (".layer", ".head", ".opacity")]
        assert spoken == ["2 of 2", "mean of all", "70%"]
        assert any("strongest in patch row" in name for name in names["image"])
        assert not [
            node
            for node in tree
            if node.get("role", {}).get("value") in ("button", "slider") and not node["name"]["value"]
        ]


def test_the_page_asks_for_the_token(demo_bundle, all_digits, profile):
    with command(demo_bundle, CAIT_TOKEN="secret") as (address, _), browser(profile) as driver:
        driver.get(address)
        wait(driver, lambda: one(driver, "#token").is_displayed())
        choose(driver, digit(all_digits, "six"))
        wait(driver, lambda: "asks for an access token" in one(driver, "#status").text)
        one(driver, "#token").send_keys("secret")
        choose(driver, digit(all_digits, "six"))
        wait(driver, lambda: "six, " in one(driver, "#status").text)
        assert [entry["message"].split("status of ")[1][:3] for entry in driver.get_log("browser")] == ["401"]


def test_a_bundle_without_attention_and_a_service_that_is_gone(tiny_bundle, all_digits, profile):
    with browser(profile) as driver:
        with command(tiny_bundle) as (address, _):
            driver.get(address)
            choose(driver, digit(all_digits, "five"))
            wait(driver, lambda: "was exported without its attention" in one(driver, ".time").text)
            assert not one(driver, ".attention").is_displayed() and one(driver, ".seen").is_displayed()
        choose(driver, digit(all_digits, "nine"))
        wait(driver, lambda: one(driver, "#status").text == "The service cannot be reached. Is it still running?")
        (complaint,) = driver.get_log("browser")
        assert "ERR_CONNECTION_REFUSED" in complaint["message"]


def test_the_interface_is_described_without_internet(address, profile):
    with browser(profile) as driver:
        driver.get(f"{address}docs")
        wait(driver, lambda: all_of(driver, ".opblock"))
        paths = [each.text.replace("\u200b", "") for each in all_of(driver, ".opblock-summary-path")]
        assert paths == ["/predict", "/health", "/metrics", "/model"]
        screenshot(driver, "docs")
