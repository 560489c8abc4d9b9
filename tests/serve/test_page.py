"""The page in a real Chromium, as people use it: with Debian's `chromium` and `chromium-driver`."""

import base64
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cait.data.labels import IMAGENET1K, read_class_names
from cait.data.prepare.digits import NAMES
from cait.deploy.bundle import read_description
from cait.deploy.classify import Reader
from serving import DESCRIPTION, FakePredictor, ask, command, served

pytestmark = pytest.mark.any_paddle

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = os.environ.get("CAIT_SCREENSHOTS")  # a folder, or None: no pictures are kept
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
# WebDriver's names of keys
ARROW_LEFT, ARROW_RIGHT, HOME, TAB, ENTER = "\ue012", "\ue014", "\ue011", "\ue004", "\ue007"
EXPECTED = re.compile(r"predict - .* status of (401|422|500) ")  # which the browser notes, too
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
def address(demo_bundle, all_digits):
    with command(demo_bundle, f"--samples={all_digits / 'val'}") as (address, _):
        yield address


@contextlib.contextmanager
def browser(profile, size=DESKTOP, language="en", flags=()):
    """A browser of its own; what it complains about at the end is an error."""
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
        check_complaints(driver)
    finally:
        driver.quit()


def check_complaints(driver):
    complaints = [entry["message"] for entry in driver.get_log("browser")]
    assert not [text for text in complaints if not EXPECTED.search(text)], complaints


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser") / "profile") as driver:
        yield driver


@pytest.fixture
def driver(shared_browser):
    """An English browser on a desktop; it shows nothing yet, and what it complains about at the end is an error."""
    yield shared_browser
    check_complaints(shared_browser)
    shared_browser.get("about:blank")


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


def choose_button(driver, group, index):
    """Chooses a button of a group by its label, as a finger does."""
    all_of(driver, f"{group} .options label")[index].click()


def chosen_button(driver, group):
    return one(driver, f"{group} .options label:has(input:checked)").text


def visible(driver, text):
    """How many times the eye finds a text on the page."""
    script = """
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        let seen = 0;
        for (let node; (node = walk.nextNode()); ) {
          const range = document.createRange();
          range.selectNodeContents(node);
          const { width, height } = range.getBoundingClientRect();
          const shown = node.parentElement.checkVisibility({ visibilityProperty: true, opacityProperty: true });
          if (node.data.includes(arguments[0]) && shown && width && height && !node.parentElement.closest(".spoken"))
            seen += 1;
        }
        return seen"""
    return driver.execute_script(script, text)


def answered(driver, count):
    """Waits until so many images are answered."""
    wait(driver, lambda: len(all_of(driver, ".card[data-state=answered]")) == count)


def best(driver):
    """The likeliest class of every image, from the top of the page down."""
    return [each.text for each in all_of(driver, ".classes li:first-child .class-name") if each.text]


def pixels(driver, selector):
    """Of a canvas, uint8 [height, width, 4]."""
    script = (
        "const c = document.querySelector(arguments[0]);"
        "return [c.height, c.width, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]"
    )
    height, width, values = driver.execute_script(script, selector)
    return np.array(values, "uint8").reshape(height, width, 4)


def screenshot(driver, name):
    """Keeps a picture of the whole page, where that is asked for."""
    if not SCREENSHOTS:
        return
    metrics = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": metrics["width"], "height": metrics["height"], "scale": 1}
    found = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path = pathlib.Path(SCREENSHOTS).expanduser() / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(found["data"]))
    print(f"screenshot: {path}")


@pytest.fixture
def profile(tmp_path):
    return tmp_path / "profile"


def digit(all_digits, name):
    return sorted((all_digits / "val" / name).glob("*.png"))[0]


def test_a_digit_is_read_and_its_attention_looked_at(address, all_digits, driver):
    driver.get(address)
    wait(driver, lambda: "cait_digits · 10 classes" in one(driver, "#model").text)
    choose(driver, digit(all_digits, "four"))
    answered(driver, 1)
    assert best(driver) == ["four"]
    bars = [
        (item.text.split("\n"), item.find_element("css selector", ".track div"))
        for item in all_of(driver, ".classes li")
    ]
    assert len(bars) == 5
    shares = [float(words[1].rstrip("%")) for words, _ in bars]
    assert shares == sorted(shares, reverse=True) and 50 < shares[0] <= 100
    track = one(driver, ".classes li:first-child .track").rect["width"]
    assert bars[0][1].rect["width"] == pytest.approx(track * shares[0] / 100, abs=2)
    assert "ms in the service" in one(driver, ".time").text

    seen, overlay = pixels(driver, ".seen"), pixels(driver, ".overlay")
    assert seen.shape == overlay.shape == (32, 32, 4)
    assert (seen[..., 0] == seen[..., 2]).all() and (overlay[..., 0] != overlay[..., 2]).any()  # grey and colours
    assert (chosen_button(driver, ".layer"), chosen_button(driver, ".head")) == ("2", "mean of all")
    looks = [overlay]
    choose_button(driver, ".head", 1)
    looks.append(pixels(driver, ".overlay"))
    choose_button(driver, ".layer", 0)
    assert (chosen_button(driver, ".layer"), chosen_button(driver, ".head")) == ("1", "1")
    looks.append(pixels(driver, ".overlay"))
    for left, right in zip(looks, looks[1:]):
        assert np.abs(left.astype(int) - right).max() > 50
    label = one(driver, ".overlay").get_attribute("aria-label")
    assert "class attention of layer 1, head 1 of 4; strongest in patch row" in label
    move(driver, ".opacity", [HOME])
    bare = pixels(driver, ".overlay")[..., :3].astype(int)
    assert np.abs(bare - seen[..., :3]).max() <= 1  # the map lies over exactly these pixels
    move(driver, ".opacity", [ARROW_RIGHT] * 14)
    choose_button(driver, ".layer", 1)
    choose_button(driver, ".head", 0)
    np.testing.assert_array_equal(pixels(driver, ".overlay"), overlay)  # back where it began
    screenshot(driver, "page")


def photos(folder):
    """Images of many kinds, in colours and of other sizes than the model's."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (9, 6, 3), "uint8")).resize((300, 450), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    photo.save(folder / "turned.jpg", exif=exif)
    photo.convert("CMYK").save(folder / "print.jpg")
    photo.save(folder / "scan.tiff")
    photo.convert("RGBA").resize((40, 900)).save(folder / "narrow.webp", lossless=True)
    photo.convert("P").save(folder / "palette.gif")
    return sorted(folder.iterdir())


def test_what_is_shown_is_what_the_model_reads(address, demo_bundle, driver, tmp_path):
    """To the last bit, whatever the image; beside it stands the image as chosen, where the browser can show it."""
    read = Reader(read_description(demo_bundle), True)
    driver.get(address)
    (tmp_path / "photos").mkdir()
    paths = photos(tmp_path / "photos")
    choose(driver, *paths)
    answered(driver, len(paths))
    for number, path in enumerate(paths, 1):
        seen = pixels(driver, f".card:nth-child({number}) .seen")
        np.testing.assert_array_equal(seen[..., :3], np.repeat(read.pixels(str(path), path.name), 3, axis=2))
    photo_shown = [each.is_displayed() for each in all_of(driver, ".photo")]
    assert photo_shown == [path.suffix != ".tiff" for path in paths]
    assert all_of(driver, ".size")[0].text == "32 × 32 pixels, grey"
    script = "return ['.seen', '.overlay'].map((name) => getComputedStyle(document.querySelector(name)).imageRendering)"
    assert driver.execute_script(script) == ["pixelated", "pixelated"]
    screenshot(driver, "photos")


def test_a_wrong_file_is_told_and_the_others_are_classified(address, all_digits, driver, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no image either")
    driver.get(address)
    choose(driver, tmp_path / "notes.txt")
    wait(driver, lambda: all_of(driver, ".card[data-state=failed]"))
    assert "“notes.txt” is not an image. Choose a JPEG" in one(driver, ".problem").text
    one(driver, "#clear").click()
    assert not all_of(driver, ".card")
    choose(driver, tmp_path / "broken.png", digit(all_digits, "seven"), digit(all_digits, "zero"))
    wait(driver, lambda: one(driver, "#status").text == "3 done, 1 could not be classified.")
    (problem,) = [each.text for each in all_of(driver, ".problem") if each.is_displayed()]
    assert problem.endswith(
        "“broken.png” could not be read as an image. Choose a JPEG, PNG, WebP, GIF, BMP or TIFF file."
    )
    assert best(driver) == ["seven", "zero"]
    screenshot(driver, "wrong_file")


def test_answers_and_errors_stand_once_and_in_the_order_of_the_files(address, all_digits, driver, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no image")
    names = ["seven", "zero", "four"]
    driver.get(address)
    wait(driver, lambda: one(driver, "#classes").is_displayed())
    choose(driver, *(digit(all_digits, name) for name in names))
    answered(driver, 3)
    assert best(driver) == names
    choose(driver, digit(all_digits, "two"))
    answered(driver, 4)
    assert best(driver) == ["two", *names]  # the newest on top
    likeliest = one(driver, ".card:first-child .classes li:first-child .prob").text
    assert visible(driver, likeliest) == 1 and visible(driver, digit(all_digits, "two").name) == 1
    assert one(driver, "#status").get_property("textContent") == (
        f"{digit(all_digits, 'two').name}: two, {likeliest}"  # for those who listen
    )
    choose(driver, tmp_path / "broken.png")
    wait(driver, lambda: all_of(driver, ".card[data-state=failed]"))
    assert visible(driver, "could not be read as an image") == 1
    assert "could not be read as an image" in one(driver, "#status").get_property("textContent")


def test_an_empty_page_offers_samples_and_names_the_classes(address, driver):
    driver.get(address)
    wait(driver, lambda: one(driver, "#samples").is_displayed())
    script = "return Array.from(document.querySelectorAll('#samples img'), (image) => image.naturalWidth)"
    wait(driver, lambda: driver.execute_script(script) == [32] * 10)
    assert [each.text for each in all_of(driver, "#classes li")] == list(NAMES)
    assert not one(driver, "#search").is_displayed()  # ten are found without
    assert not all_of(driver, ".card") and one(driver, "footer").text == "Interface for programs"
    screenshot(driver, "empty")
    all_of(driver, "#samples button")[3].send_keys(ENTER)
    answered(driver, 1)
    focused = driver.execute_script("return document.activeElement.className")
    assert focused == "card" and not one(driver, "#samples").is_displayed()
    assert not one(driver, "#classes ol").is_displayed()
    one(driver, "#clear").click()
    assert one(driver, "#samples").is_displayed() and one(driver, "#classes ol").is_displayed()


def test_a_thousand_classes_are_searched_and_a_single_map_offers_no_choice(driver, tmp_path):
    names = read_class_names(IMAGENET1K)
    predictor = FakePredictor(dataclasses.replace(DESCRIPTION, class_names=names), layers=1, heads=1)
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    with served(predictor=predictor) as (address, *_):
        driver.get(address)
        wait(driver, lambda: len(all_of(driver, "#classes li")) == 1000)
        assert not one(driver, "#samples").is_displayed()  # there are none
        one(driver, "#search").send_keys("SETTER")
        found = [each.text for each in all_of(driver, "#classes li")]
        assert found == [name for name in names if "setter" in name.lower()]
        assert "Irish setter, red setter" in found and one(driver, "#found").text == f"{len(found)} of 1,000"
        choose(driver, tmp_path / "x.png")
        answered(driver, 1)
        assert one(driver, ".overlay").is_displayed() and one(driver, ".opacity").is_displayed()
        assert not one(driver, ".layer").is_displayed() and not one(driver, ".head").is_displayed()
        assert len(all_of(driver, "input[type=range]")) == 1


def test_on_a_phone_in_chinese(address, all_digits, profile):
    with browser(profile, PHONE, "zh-CN") as driver:
        driver.get(address)
        wait(driver, lambda: "cait_digits · 10 个类别" in one(driver, "#model").text)
        assert driver.execute_script("return document.documentElement.lang") == "zh-CN"
        screenshot(driver, "phone_chinese_empty")
        photo = one(driver, "#photo")
        assert photo.get_attribute("capture") == "environment" and photo.rect["width"] > 40
        photo.send_keys(str(digit(all_digits, "two")))
        answered(driver, 1)
        assert "服务用时" in one(driver, ".time").text and chosen_button(driver, ".head") == "全部平均"
        width, inner = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width <= inner == 390  # nothing to be moved sideways
        for element in all_of(driver, "button, .button, input[type=range], .options label, summary"):
            assert not element.is_displayed() or element.rect["height"] >= 28, element.get_attribute("outerHTML")
        screenshot(driver, "phone_chinese")
        one(driver, "#language").click()
        assert "ms in the service" in one(driver, ".time").text and chosen_button(driver, ".head") == "mean of all"
        spoken = one(driver, "#status").get_property("textContent")
        assert spoken.startswith(digit(all_digits, "two").name + ": two, ")


def test_both_languages_say_the_same(address, driver):
    """Every sentence is there in both, with the same numbers and names in it."""
    script = """
        const done = arguments[arguments.length - 1];
        import("/page/words.js").then(({ WORDS }) => done(Object.fromEntries(Object.entries(WORDS).map(
          ([code, words]) => [code, Object.fromEntries(Object.entries(words).map(
            ([key, value]) => [key, value.call ? value("@1", "@2", "@3", "@4", "@5") : value]))]))))"""
    driver.get(address)
    words = driver.execute_async_script(script)
    asked = driver.execute_script(
        "return Array.from(document.querySelectorAll('[data-word], [data-label]'),"
        " ({ dataset }) => dataset.word || dataset.label)"
    )
    assert set(asked) <= set(words["en"])
    assert list(words["en"]) == list(words["zh"])
    for key, english in words["en"].items():
        chinese = words["zh"][key]
        assert english and chinese and english != chinese, key
        assert sorted(re.findall(r"@\d", english)) == sorted(re.findall(r"@\d", chinese)), key


def test_with_the_keyboard_and_for_screen_readers(address, all_digits, driver):
    from selenium.webdriver import ActionChains

    driver.get(address)
    choose(driver, digit(all_digits, "one"))
    answered(driver, 1)
    reached = []
    for _ in range(14):
        ActionChains(driver).send_keys(TAB).perform()
        name = driver.execute_script(
            "const e = document.activeElement;"
            "return e.id || e.closest('.choice')?.className || e.className || e.dataset.word || e.parentElement.id"
        )
        reached.append(name)
        if name != "files" and driver.execute_script("return document.activeElement !== document.body"):
            script = (
                "const e = document.activeElement, shown = e.type === 'radio' ? e.nextElementSibling : e;"
                "return getComputedStyle(shown).outlineStyle"
            )
            assert driver.execute_script(script) == "solid", name
    wanted = "language", "files", "clear", "choice layer", "choice head", "opacity", "classes", "about", "phone", "docs"
    for name in wanted:
        assert name in reached, reached
    one(driver, ".head input:checked").send_keys(ARROW_RIGHT)
    assert chosen_button(driver, ".head") == "1"
    assert one(driver, "#status").get_attribute("aria-live") == "polite"
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {(node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name") and node.get("role")}
    names = {role: sorted(name for kind, name in named if kind == role) for role, _ in named}
    assert names["slider"] == ["Overlay"] and one(driver, ".opacity").get_attribute("aria-valuetext") == "70%"
    assert {"Layer", "Head"} <= set(names["group"]) and names["radio"] == ["1", "2", "3", "4", "mean of all"]
    assert any("strongest in patch row" in name for name in names["image"])
    assert not [
        node
        for node in tree
        if node.get("role", {}).get("value") in ("button", "slider", "radio", "image")
        and not node.get("name", {}).get("value")
    ]


def test_without_scripts_the_page_tells_what_it_needs(address, profile):
    with browser(profile, flags=["--blink-settings=scriptEnabled=false"]) as driver:
        driver.get(address)
        text = one(driver, "body").text
        assert "This page needs JavaScript" in text and "本页面需要 JavaScript" in text and "POST /predict" in text
        assert not [each for each in all_of(driver, "button, input, summary") if each.is_displayed()]  # nothing dead


def test_images_are_kept_until_the_token_is_right(driver, tmp_path):
    for number in range(8):
        Image.new("L", (8, 8), 255 * (number % 2)).save(tmp_path / f"{number}.png")
    with served(token="secret") as (address, *_):
        driver.get(address)
        wait(driver, lambda: one(driver, "#token").is_displayed())
        choose(driver, *sorted(tmp_path.glob("*.png")))
        wait(driver, lambda: "asks for an access token" in one(driver, "#trouble").text)
        assert visible(driver, "asks for an access token") == 1 and not one(driver, "#again").is_displayed()
        assert len(all_of(driver, ".card[data-state=kept]")) == 8
        refused = [entry["message"] for entry in driver.get_log("browser")]
        assert 1 <= len(refused) <= 4 and all("status of 401" in text for text in refused)  # the others were not sent
        screenshot(driver, "token")
        one(driver, "#token").send_keys("wrong", ENTER)
        wait(driver, lambda: driver.get_log("browser"))
        wait(driver, lambda: one(driver, "#trouble").is_displayed())
        one(driver, "#token").clear()
        one(driver, "#token").send_keys("secret", ENTER)
        answered(driver, 8)
        assert best(driver) == ["dark", "bright"] * 4 and not one(driver, "#trouble").is_displayed()


def test_images_are_kept_while_the_service_fails(driver, tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "x.png")
    with served() as (address, predictor, *_):
        driver.get(address)
        predictor.error = RuntimeError("out of memory")
        choose(driver, tmp_path / "x.png")
        wait(driver, lambda: one(driver, "#trouble").is_displayed())
        assert visible(driver, "The service could not answer.") == 1
        assert one(driver, ".problem").text == "Not classified yet."
        predictor.error = None
        one(driver, "#again").click()
        answered(driver, 1)
        assert best(driver) == ["bright"] and not one(driver, "#trouble").is_displayed()


def test_a_bundle_without_attention_and_a_service_that_is_gone(tiny_bundle, all_digits, driver):
    with command(tiny_bundle) as (address, _):
        driver.get(address)
        choose(driver, digit(all_digits, "five"))
        wait(driver, lambda: "was exported without its attention" in one(driver, ".time").text)
        assert not one(driver, ".attention").is_displayed() and one(driver, ".seen").is_displayed()
    choose(driver, digit(all_digits, "nine"), digit(all_digits, "one"))
    wait(driver, lambda: one(driver, "#reason").text.endswith("cannot be reached. Is it still running?"))
    assert visible(driver, "The service cannot be reached") == 1 and one(driver, "#again").is_displayed()
    complaints = [entry["message"] for entry in driver.get_log("browser")]
    assert complaints and all("ERR_CONNECTION_REFUSED" in text for text in complaints)


def test_the_model_and_the_service_are_described_for_people(address, driver):
    driver.get(address)
    wait(driver, lambda: one(driver, "#about").is_displayed())
    one(driver, "#about summary").click()
    wait(driver, lambda: one(driver, "#health").text == "The service works.")
    facts = dict(
        zip([each.text for each in all_of(driver, "#facts dt")], [each.text for each in all_of(driver, "#facts dd")])
    )
    assert facts["Model"] == "cait_digits" and facts["It sees"] == "32 × 32 pixels, grey"
    assert facts["A request holds"] == "up to 16 images and 32 MB" and len(facts["Weights (SHA-256)"]) == 64
    one(driver, "#phone summary").click()
    assert "CAIT_TOKEN=" in one(driver, "#phone code").text and "--host=0.0.0.0" in one(driver, "#phone code").text
    screenshot(driver, "about")
    for link in all_of(driver, "a"):  # none opens what is for programs
        if link.is_displayed():
            kind = ask(address, link.get_attribute("href").removeprefix(address.rstrip("/")))[1]["Content-Type"]
            assert kind.startswith("text/html"), link.get_attribute("href")


def test_a_service_that_others_reach_tells_where_and_says_when_it_fails(driver, monkeypatch):
    where = ["http://192.0.2.7:8000/", "http://[2001:db8::7]:8000/"]
    with served(token="secret", addresses=where) as (address, _, service, _):
        monkeypatch.setattr(type(service), "healthy", False)
        driver.get(address)
        wait(driver, lambda: one(driver, "#phone").is_displayed())
        one(driver, "#phone summary").click()
        assert [each.text for each in all_of(driver, "#phone code")] == where
        assert "access token" in one(driver, "#phone-token").text
        one(driver, "#about summary").click()
        wait(driver, lambda: one(driver, "#health").text == "The service could not answer.")
        driver.get_log("browser")  # which notes the status 503


# Of all that shows: text against what is behind it, and borders against what is around them, as [ratio, what].
CONTRASTS = """
    const parse = (text) => {
      const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
      return { rgb: [r, g, b], a };
    };
    const luminance = (rgb) => {
      const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
      const [low, high] = [luminance(one), luminance(other)].sort((left, right) => left - right);
      return (high + 0.05) / (low + 0.05);
    };
    const behind = (element) => {
      for (; element; element = element.parentElement) {
        const { rgb, a } = parse(getComputedStyle(element).backgroundColor);
        if (a === 1) return rgb;
        if (a !== 0) throw new Error("half transparent: " + element.outerHTML);
      }
      throw new Error("nothing is behind it");
    };
    const found = { text: [], border: [] };
    for (const element of document.body.querySelectorAll("*")) {
      if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
      const style = getComputedStyle(element);
      const what = `${element.tagName}#${element.id}.${element.className}`;
      const texts = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
      if (texts.length || element.matches("input:not([type=range])"))
        found.text.push([contrast(parse(style.color).rgb, behind(element)), what]);
      if (style.borderTopStyle !== "none" && style.borderTopWidth !== "0px")
        found.border.push([contrast(parse(style.borderTopColor).rgb, behind(element.parentElement)), what]);
      if (element.className === "track")
        found.border.push([contrast(behind(element.firstChild), behind(element)), what]);
    }
    return found"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_that_of_wcag(driver, tmp_path, scheme):
    """4.5 to 1 of all text, 3 to 1 of all borders and bars, in every state of the page."""
    Image.new("L", (8, 8), 255).save(tmp_path / "x.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = [f"class {number}" for number in range(30)]
    predictor = FakePredictor(dataclasses.replace(DESCRIPTION, class_names=names))
    with served(predictor=predictor, token="secret") as (address, *_):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get(address)
        wait(driver, lambda: one(driver, "#about").is_displayed())
        choose(driver, tmp_path / "x.png")
        wait(driver, lambda: one(driver, "#trouble").is_displayed())
        states = [driver.execute_script(CONTRASTS)]
        one(driver, "#token").send_keys("secret", ENTER)
        answered(driver, 1)
        choose(driver, tmp_path / "x.png", tmp_path / "broken.png")
        wait(driver, lambda: all_of(driver, ".card[data-state=failed]"))
        driver.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
        states.append(driver.execute_script(CONTRASTS))
        background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(245, 246, 248)") == (scheme == "light")
    for kind, least, enough in (("text", 4.5, 60), ("border", 3, 25)):
        measured = [pair for state in states for pair in state[kind]]
        assert len(measured) > enough and not [pair for pair in measured if pair[0] < least]


def test_the_interface_is_described_without_internet(address, driver):
    driver.get(f"{address}docs")
    wait(driver, lambda: all_of(driver, ".opblock"))
    paths = [each.text.replace("\u200b", "") for each in all_of(driver, ".opblock-summary-path")]
    assert paths == ["/predict", "/health", "/metrics", "/model"]
    screenshot(driver, "docs")
