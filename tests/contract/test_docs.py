"""The pages of documentation: links lead somewhere, both languages are there and say the same, the README is short."""

import re

import pytest

from project import ROOT

ENGLISH_ALONE = {"SECURITY.md", "CHANGELOG.md", "docs/config.md", "tests/fuzz/README.md"}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "dataset", "txt", "test_tipc", "tests/fuzz")
    for path in (ROOT / folder).glob("*.md")
)
ENGLISH = [page for page in PAGES if not page.endswith("_cn.md")]

pytestmark = pytest.mark.any_paddle


def text_of(page):
    return (ROOT / page).read_text()


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), target


@pytest.mark.parametrize("page", [page for page in ENGLISH if page not in ENGLISH_ALONE])
def test_both_languages_link_each_other_and_have_the_same_examples(page):
    chinese = page.removesuffix(".md") + "_cn.md"
    names = [name.rpartition("/")[2] for name in (page, chinese)]
    assert f"[中文]({names[1]})" in text_of(page) and f"[English]({names[0]})" in text_of(chinese)
    blocks = [
        re.findall(r"^```(?:bash|python|json)\n(.*?)^```", text_of(name), re.M | re.S) for name in (page, chinese)
    ]
    without = [[re.sub(r" *# .*", "", block) for block in found] for found in blocks]
    assert without[0] == without[1]
    figures = [re.findall(r"!\[[^]]*\]\(([^)]*)\)", text_of(name)) for name in (page, chinese)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("page", sorted(ENGLISH_ALONE))
def test_chinese_pages_say_which_pages_are_in_english_alone(page):
    assert page in ENGLISH
    for chinese in (name for name in PAGES if name.endswith("_cn.md")):
        for line in text_of(chinese).split("\n"):
            if f"[{page}]" in line or f"[{page.rpartition('/')[2]}]" in line:
                assert "仅英文" in line or "仅英文" in text_of(chinese), (chinese, line)


def test_the_readme_is_short_and_its_commands_can_be_copied():
    text = text_of("README.md")
    assert len(text.split()) <= 1500
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
        assert not re.search(r"\w\|\w", block) and "<" not in block
    first = re.search(r"^```bash\n(.*?)^```", text_of("README_cn.md"), re.M | re.S)[1]
    assert all(re.search(r"#.*[\u4e00-\u9fff]", line) for line in first.splitlines())
