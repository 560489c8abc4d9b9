"""The requests and answers of the service in OpenAPI. The answers themselves are built as plain dicts."""

from typing import Any

from pydantic import BaseModel, Field


class ClassProbability(BaseModel):
    """How likely a class is."""

    class_id: int
    class_name: str
    prob: float = Field(description="softmax probability over all classes")


class Attention(BaseModel):
    """Class attention of one image. The row of a head, `class_token` and `maps` together, sums to one."""

    maps: list[list[list[list[float]]]] = Field(
        description="[class-attention layer][head][row][column] of the patches of the image that the model sees: "
        "resized and cropped at the centre"
    )
    class_token: list[list[float]] = Field(description="[layer][head]: the share of the class token itself")


class ImageAnswer(BaseModel):
    """Of one image: its classes, or why it could not be read."""

    name: str = Field(description="of the file, or `image N`")
    classes: list[ClassProbability] | None = Field(None, description="the likeliest first")
    attention: Attention | None = Field(None, description="where it was asked for")
    seen: str | None = Field(None, description="where it was asked for: what the model sees, a PNG in base64")
    error: str | None = None


class Answer(BaseModel):
    """Of all images of a request."""

    model: str
    results: list[ImageAnswer] = Field(description="in the order of the images")
    time_ms: float = Field(description="from the head of the request to this answer, in milliseconds")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str
    results: list[ImageAnswer] | None = Field(None, description="where all images were at fault, of each")


class Health(BaseModel):
    """Whether the service can classify."""

    status: str = Field(description="`ok`; `slow`: images that take long keep others waiting; with status 503 `failed`")


class ModelInfo(BaseModel):
    """What is served."""

    model: str
    image_size: list[int] = Field(description="[height, width] of the input in pixels")
    channels: int = Field(description="1: the model sees grey, 3: it sees colours")
    crop_pct: float = Field(description="share of the resized image that the central crop keeps")
    exif: bool = Field(description="whether images are turned as their EXIF orientation says")
    class_names: list[str]
    attention: bool = Field(description="whether class attention can be asked for")
    precision: str
    weights: str = Field(description="SHA-256 of the weights")
    versions: dict[str, str] = Field(description="of the software that exported the bundle")
    max_images: int = Field(description="in a request")
    max_upload_bytes: int = Field(description="of the body of a request")
    token: bool = Field(description="whether /predict and /metrics want a token")
    samples: list[str] = Field(description="names of the images to try, which are at /samples/0, /samples/1, ...")
    addresses: list[str] = Field(description="where other devices of the network reach the service; empty: nowhere")


_TOP_K = {"type": "integer", "minimum": 1, "description": "classes of each image"}
_ATTENTION = {"type": "boolean", "default": False, "description": "answer with the class attention, too"}
_SEEN = {"type": "boolean", "default": False, "description": "answer with the image as the model sees it, too"}


def request_body(default_top_k: int) -> dict[str, Any]:
    """The body of /predict, which the service reads itself, in the words of OpenAPI."""
    more = {"top_k": _TOP_K | {"default": default_top_k}, "attention": _ATTENTION, "seen": _SEEN}

    def form(images: dict[str, Any]) -> dict[str, Any]:
        return {
            "schema": {
                "type": "object",
                "required": ["images"],
                "additionalProperties": False,
                "properties": {"images": {"type": "array", "minItems": 1, "items": images}, **more},
            }
        }

    file = {"type": "string", "format": "binary"}
    text = {"type": "string", "format": "byte", "description": "an image file in base64; may be a data: URL"}
    return {"required": True, "content": {"multipart/form-data": form(file), "application/json": form(text)}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers that tell of a problem, for FastAPI's `responses`."""
    meanings = {
        400: "the body is damaged",
        401: "the token is missing or wrong",
        403: "a page of another site sent the request",
        408: "the request did not arrive in time",
        413: "the body is too large",
        415: "the body is neither a form nor JSON",
        421: "the service does not go by the name in Host",
        422: "a value is wrong, or none of the images can be read",
        500: "the predictor failed",
        503: "the queue is full, or the service is about to end; Retry-After says when to come again",
        504: "the answer was not ready in time",
    }
    return {status: {"model": Problem, "description": meanings[status]} for status in statuses}
