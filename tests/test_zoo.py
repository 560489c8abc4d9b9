"""The published variants: their cost, and what the docs say of them."""

import re

import pytest

from cait.variants import list_models
from cait.zoo import count_macs, variant_config, variant_shapes
from project import ROOT

# timm's counts, in 1e9 multiply-accumulate operations.
GMACS = {
    "cait_xxs24_224": 2.53, "cait_xxs36_224": 3.77, "cait_s24_224": 9.35, "cait_xxs24_384": 9.63,
    "cait_xxs36_384": 14.35, "cait_xs24_384": 19.28, "cait_s24_384": 32.17, "cait_s36_384": 47.99,
    "cait_m36_384": 173.11, "cait_m48_448": 329.41,
}  # fmt: skip


@pytest.mark.parametrize("name", list_models())
def test_multiply_accumulates_are_those_of_timm(name):
    assert count_macs(variant_config(name)) / 1e9 == pytest.approx(GMACS[name], rel=0.01)


def test_attention_products_are_counted():
    config = variant_config("cait_xxs24_384").clone()
    base = count_macs(config)
    config.defrost()
    config.DATA.IMAGE_SIZE = [768, 768]
    assert count_macs(config) > 8 * base  # more than the fourfold of the Linear layers


@pytest.mark.parametrize("page", ["model_zoo.md", "model_zoo_cn.md"])
@pytest.mark.parametrize("name", list_models())
def test_the_model_zoo_page_has_the_numbers(page, name):
    text = (ROOT / "docs" / page).read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
    parameters = sum(_product(shape) for shape in variant_shapes(variant_config(name)).values())
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == f"{parameters:,}"
    assert cells[2] == f"{count_macs(variant_config(name)) / 1e9:.2f}"
    published = re.search(rf"published top-1 / top-5 ({cells[3]}) / ({cells[4]}) %", _head(name))
    assert published, "the accuracy differs from that of the YAML file"


def _head(name):
    return (ROOT / "CaiT" / "configs" / f"{name}.yaml").read_text().splitlines()[0]


def _product(shape):
    product = 1
    for size in shape:
        product *= size
    return product


def test_both_model_zoo_pages_have_the_same_commands():
    blocks = [re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL) for page in PAGES]
    assert blocks[0] == blocks[1] and blocks[0]


PAGES = ("model_zoo.md", "model_zoo_cn.md")
