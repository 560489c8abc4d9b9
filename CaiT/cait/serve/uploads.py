"""Parses the body of a request: from bytes to images and options, or to the reason why not."""

import base64
import binascii
import dataclasses
import json
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cait.errors import CaitError, shown

FIELDS = ("images", "top_k", "attention", "seen")
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}  # in a form
ONE_OF = "the fields are " + ", ".join(FIELDS)
MAX_TEXT_BYTES = 100  # of a field that is no image
MAX_NAME = 255  # characters of a file's name that come back


class UploadError(CaitError):
    """A request that cannot be answered, in a sentence; `status` is HTTP's."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        max_bytes: of its body.
        max_images: in it.
        num_classes: that the model knows: the largest top_k.
        has_attention: whether the bundle gives class attention.
    """

    max_bytes: int
    max_images: int
    num_classes: int
    has_attention: bool


@dataclasses.dataclass(frozen=True)
class Upload:
    """An encoded image and the name that its answer bears."""

    name: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be classified.

    Attributes:
        images: one or more.
        top_k: classes of each.
        attention: whether its class attention is wanted too.
        seen: whether the image as the model sees it is wanted too.
    """

    images: list[Upload]
    top_k: int
    attention: bool
    seen: bool = False


def parse_request(content_type: str, body: bytes, limits: Limits, default_top_k: int) -> Request:
    """Reads a body of `multipart/form-data` or JSON.

    Raises:
        UploadError: it is neither, damaged, or asks for what there is not.
    """
    kind, options = parse_options_header(content_type)
    kind = kind.lower()  # not every version of the parser does
    if kind == b"multipart/form-data":
        if not options.get(b"boundary"):
            raise UploadError(400, "the Content-Type multipart/form-data names no boundary")
        values = _multipart(options[b"boundary"], body, limits.max_images)
    elif kind == b"application/json":
        values = _json(body, limits.max_images)
    else:
        named = shown(kind.decode("latin-1"), bare=True) or "missing"
        raise UploadError(415, f"the Content-Type is {named}; send multipart/form-data or application/json")
    return _checked(values, limits, default_top_k)


def _checked(values: dict[str, Any], limits: Limits, default_top_k: int) -> Request:
    images, top_k = values["images"], values.get("top_k", default_top_k)
    attention, seen = values.get("attention", False), values.get("seen", False)
    if not images:
        raise UploadError(422, "the request holds no image; the field is `images`")
    if len(images) > limits.max_images:
        raise UploadError(422, f"the request holds {len(images)} images, and {limits.max_images} are allowed")
    if type(top_k) is not int or not 1 <= top_k:
        raise UploadError(422, f"top_k must be a whole number from 1, not {shown(top_k)}")
    for name, value in (("attention", attention), ("seen", seen)):
        if type(value) is not bool:
            raise UploadError(422, f"{name} must be true or false, not {shown(value)}")
    if attention and not limits.has_attention:
        raise UploadError(
            422, "this bundle was exported without its attention; export_model.py --with-attention adds it"
        )
    return Request(images, min(top_k, limits.num_classes), attention, seen)


class _Parts:
    """The parts of a form, gathered as the parser finds them."""

    def __init__(self, max_images: int):
        self.images: list[Upload] = []
        self.texts: dict[str, str] = {}
        self._max_images = max_images
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._chunks: list[bytes] = []
        self.ended = False

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add("_name", data[start:end]),
            "on_header_value": lambda data, start, end: self._add("_value", data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._chunks.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": lambda: setattr(self, "ended", True),
        }

    def _begin(self) -> None:
        self._headers, self._chunks = {}, []

    def _add(self, place: str, piece: bytes) -> None:
        setattr(self, place, getattr(self, place) + piece)

    def _header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        data = b"".join(self._chunks)
        if field == "images":
            if len(self.images) == self._max_images:
                raise UploadError(422, f"the request holds more than the {self._max_images} images that are allowed")
            name = options.get(b"filename", b"").decode("utf-8", "replace")[:MAX_NAME]
            self.images.append(Upload(name or f"image {len(self.images) + 1}", data))
        elif field not in FIELDS:
            raise UploadError(422, f"unknown field {shown(field)}; {ONE_OF}")
        elif len(data) > MAX_TEXT_BYTES:
            raise UploadError(422, f"{field} has {len(data)} bytes, which is no value for it")
        elif field in self.texts:
            raise UploadError(422, f"{field} is given twice")
        else:
            self.texts[field] = data.decode("utf-8", "replace").strip()


def _multipart(boundary: bytes, body: bytes, max_images: int) -> dict[str, Any]:
    parts = _Parts(max_images)
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)
    except FormParserError as error:
        raise UploadError(400, f"the form cannot be read ({error})") from error
    if not parts.ended:
        raise UploadError(400, "the form ends before its last boundary")
    values: dict[str, Any] = {"images": parts.images}
    if top_k := parts.texts.get("top_k"):
        values["top_k"] = int(top_k) if top_k.isascii() and top_k.isdecimal() else top_k
    for name in ("attention", "seen"):
        if text := parts.texts.get(name):
            values[name] = BOOLEANS.get(text.lower(), text)
    return values


def _json(body: bytes, max_images: int) -> dict[str, Any]:
    # Millions of small things, which only commas part, take many times their bytes in memory.
    if body.count(b",") > 2 * max_images + len(FIELDS):
        raise UploadError(422, f"the request holds more than the {max_images} images that are allowed")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UploadError(400, f"the JSON cannot be read ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("images"), list):
        raise UploadError(422, 'the JSON must be an object such as {"images": ["<base64>"], "top_k": 5}')
    for name in values:
        if name not in FIELDS:
            raise UploadError(422, f"unknown field {shown(name)}; {ONE_OF}")
    return values | {"images": [_decoded(text, number) for number, text in enumerate(values["images"], 1)]}


def _decoded(text: Any, number: int) -> Upload:
    name = f"image {number}"
    if not isinstance(text, str):
        raise UploadError(422, f"{name}: must be a string of base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Upload(name, base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise UploadError(422, f"{name}: is no base64 ({error})") from error
