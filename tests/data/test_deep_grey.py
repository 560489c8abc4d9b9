"""Grey images of more than 8 bits: scaled, or cut as the references cut them, alike in all that reads images."""

import asyncio
import shutil

import numpy as np
import pytest
from PIL import Image

from cait.data.build import build_loaders
from cait.data.check import look
from cait.data.dataset import ImageDataset
from cait.data.decoding import in_mode
from cait.data.sources import FileSource
from cait.data.transforms import EvalTransform
from cait.deploy.bundle import read_description
from cait.deploy.classify import Reader
from cait.deploy.export import build_description, export
from cait.errors import CaitError
from cait.files import read_bytes
from cait.serve.decoder import DecodeLimits
from cait.serve.decoders import Decoders
from cait.train import jobs
from pictures import loader_of
from project import CLASS_NAMES

DEEP = np.random.default_rng(0).integers(0, 400, (20, 30)).astype("uint16") ** 2 % 40_000
KINDS = {
    "16.png": Image.fromarray(DEEP),
    "16.tif": Image.fromarray(DEEP),
    "big-endian.tif": Image.fromarray(DEEP.astype(">u2")),
    "32.tif": Image.fromarray(DEEP.astype("int32")),
    "float.tif": Image.fromarray(DEEP.astype("float32")),
}


@pytest.fixture(params=KINDS)
def file(request, tmp_path):
    KINDS[request.param].save(tmp_path / request.param)
    return tmp_path / request.param


def reference(path, mode, size):
    """What timm and torchvision make of a file: `convert`, then bicubic."""
    with Image.open(path) as image:
        resized = image.convert(mode).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(resized).reshape(*size, -1)


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB")])
def test_cut_pixels_are_those_of_the_references(file, channels, mode):
    dataset = ImageDataset(FileSource([str(file)], [0]), EvalTransform((20, 30)), channels, 0, deep_grey="clip")
    array, *_, error = dataset[0, 0]
    assert error == "" and dataset.num_scaled == 0
    assert np.array_equal(array, reference(file, mode, (20, 30)))
    assert np.array_equal(array[:, :, 0], np.minimum(DEEP, 255))
    assert (array == 255).mean() > 0.9  # which is why it is not the default


@pytest.mark.parametrize("name", ["16.png", "16.tif", "big-endian.tif"])
def test_scaled_pixels_keep_the_picture_and_are_counted(tmp_path, name):
    KINDS[name].save(tmp_path / name)
    dataset = ImageDataset(FileSource([str(tmp_path / name)], [0]), EvalTransform((20, 30)), 1, 0)
    assert np.array_equal(dataset[0, 0][0][:, :, 0], np.rint(DEEP / 257)) and dataset.num_scaled == 1


@pytest.mark.parametrize("name", ["32.tif", "float.tif"])
def test_nothing_is_scaled_whose_range_nothing_tells(tmp_path, name):
    with pytest.raises(ValueError, match="its pixels have 32 bits"):
        in_mode(KINDS[name], "L")
    KINDS[name].save(tmp_path / name)
    source = FileSource([str(tmp_path / name)], [0])
    assert len(look(source, "L", 1).bad) == 1 and not look(source, "L", 1, "clip").bad


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("deep_grey, expected", [("scale", 5), ("clip", 0)])
def test_the_loader_knows_how_many_were_scaled(tmp_path, num_workers, deep_grey, expected):
    for number in range(9):
        Image.fromarray(DEEP if number % 2 else DEEP.astype("uint8")).save(tmp_path / f"{number}.png")
    Image.fromarray(DEEP).save(tmp_path / "0.png")
    source = FileSource([str(tmp_path / f"{number}.png") for number in range(9)], [0] * 9)
    dataset = ImageDataset(source, EvalTransform((8, 8)), 1, 0, deep_grey=deep_grey)
    loader = loader_of(dataset, 2, num_workers=num_workers)
    for _ in range(2):
        assert sum(len(batch.labels) for batch in loader) == 9 and loader.num_scaled == expected


@pytest.fixture
def deep_data(tmp_path):
    """A data folder whose images have 16 bits, two of each class."""
    for split in ("train", "val", "test"):
        for number in range(2 * len(CLASS_NAMES)):
            folder = tmp_path / "data" / split
            folder = folder if split == "test" else folder / CLASS_NAMES[number // 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(DEEP, number)).save(folder / f"{number}.png")
    return tmp_path / "data"


def config_of(tiny_config, data, **more):
    return tiny_config(DATA__DATASET="folder", DATA__DATA_PATH=str(data), DATA__NUM_WORKERS=0, **more)


@pytest.mark.parametrize("deep_grey", ["scale", "clip"])
def test_the_key_reaches_all_loaders(tiny_config, deep_data, deep_grey):
    loaders = build_loaders(config_of(tiny_config, deep_data, DATA__DEEP_GREY=deep_grey))
    more = {"PRED": True, "MODEL__PRETRAINED": "x", "DATA__DEEP_GREY": deep_grey}
    predicting = build_loaders(config_of(tiny_config, deep_data, **more))
    for loader in (loaders.train, loaders.val, predicting.test):
        pixels = np.concatenate([batch.images.numpy() for batch in loader])
        assert ((pixels == 255).mean() > 0.5) == (deep_grey == "clip")
        assert (loader.num_scaled > 0) == (deep_grey == "scale")


@pytest.mark.parametrize("deep_grey, is_said", [("scale", True), ("clip", False)])
def test_an_evaluation_says_where_it_differs_from_the_references(
    tiny_config, tiny_weights, deep_data, deep_grey, is_said
):
    more = {"EVAL": True, "MODEL__PRETRAINED": str(tiny_weights[2]), "DATA__DEEP_GREY": deep_grey}
    config = config_of(tiny_config, deep_data, **more)
    jobs.evaluate(config)
    text = read_bytes(f"{config.OUTPUT_DIR}/log_eval.txt").decode()
    words = f"{2 * len(CLASS_NAMES)} grey images of 16 bits were scaled to 8, where timm and torchvision cut all values"
    assert (words in text and "-o DATA.DEEP_GREY=clip" in text) == is_said
    assert ("16 bits" in text) == is_said


@pytest.mark.parametrize("deep_grey", ["scale", "clip"])
def test_a_bundle_keeps_the_choice_for_inference_and_service(tiny_config, tiny_weights, tmp_path, file, deep_grey):
    _, model, path = tiny_weights
    folder, config = tmp_path / "bundle", tiny_config(DATA__DEEP_GREY=deep_grey)
    export(model, build_description(config, CLASS_NAMES, path), folder, fused=False)
    read = Reader(read_description(folder), apply_exif=True)
    shutil.rmtree(folder)
    if deep_grey == "scale" and file.name in ("32.tif", "float.tif"):
        with pytest.raises(CaitError, match="its pixels have 32 bits"):
            read(str(file))
        return
    with Image.open(file) as image:
        grey = in_mode(image, "L", deep_grey)
    found = read.pixels(str(file), "x")
    assert np.array_equal(found, EvalTransform((16, 16), config.DATA.CROP_PCT)(grey))

    async def served():
        decoders = Decoders(read.pixels, DecodeLimits())
        decoders.attach()
        try:
            return await decoders.decode("x", file.read_bytes())
        finally:
            decoders.stop()

    assert np.array_equal(asyncio.run(served())[0], found)
