"""timm's own model, run beside ours on the same weights and images. Needs torch and timm (requirements-align.txt)."""

import functools
import pathlib

import numpy as np
from PIL import Image

from cait.align.golden import golden_images, golden_tensor
from cait.align.ladder import ALPHA, MIXED, NUM_STEPS, SCHEDULES, SMOOTHING, TAU, TRAINING
from cait.align.verdict import MIXED_TARGETS, NORMALISED, Arrays
from cait.data.decoding import open_image, reading
from cait.data.transforms import EvalTransform
from cait.errors import UsageError
from cait.model import CaiT
from cait.weights.layout import check_tensors, swap_layout
from cait.weights.load import set_tensors
from cait.weights.read import read_any

NUM_IMAGES, MAX_PICTURES = 2, 16  # through the models; through the preprocessing
PICTURE_SIZES = ((500, 375), (240, 320), (97, 101))  # width and height of the made-up pictures


class LiveReference:
    """A published variant in timm, in float64.

    Args:
        name: such as `cait_xxs24_224`.
        make_model: our CaiT of that size for a number of classes; its weights are replaced.
        weights: a checkpoint of that variant; None: weights by the golden files' rule.
        pictures: image files to use; None: noise.
    """

    steps: tuple[int, ...] = (1, 2, 3, 4, 5)

    def __init__(self, name: str, make_model, weights: pathlib.Path | None, pictures: list[str] | None):
        try:
            import timm.data.mixup
            import timm.loss
            import timm.optim
            import timm.scheduler
            import timm.utils
            import torch
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
            raise UsageError(f"--live: pip install -r requirements-align.txt ({error})") from error
        self.torch, self.timm, self.name = torch, timm, name
        self.files = pictures
        tensors = None if weights is None else read_any(weights)
        self.num_classes = 1000 if tensors is None else tensors["head.weight"].shape[0]
        self.model = timm.create_model(name, num_classes=self.num_classes).double()
        shapes = {key: tuple(value.shape) for key, value in self.model.state_dict().items()}
        if tensors is None:
            tensors = {key: golden_tensor(key, shape) for key, shape in shapes.items()}
        check_tensors(tensors, shapes, str(weights))
        self.tensors = {key: np.asarray(value, "float64") for key, value in tensors.items()}
        self.make_model = make_model
        self._reset()

    def _reset(self) -> None:
        state = {key: self.torch.from_numpy(value.copy()) for key, value in self.tensors.items()}
        self.model.load_state_dict(state, strict=True)
        self.model.eval()

    def our_model(self) -> CaiT:
        model = self.make_model(self.num_classes)
        set_tensors(model, swap_layout(self.tensors))
        return model

    @property
    def size(self) -> int:
        return int(self.name.rsplit("_", 1)[1])

    @functools.cache  # noqa: B019 (one instance, for the length of a command)
    def _opened(self) -> list[Image.Image]:
        if self.files is None:
            rng = np.random.default_rng(3)
            return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype="uint8")) for w, h in PICTURE_SIZES]
        pictures = []
        for file in self.files[:MAX_PICTURES]:
            with reading(file), open_image(file) as picture:
                pictures.append(picture.convert("RGB"))
        return pictures

    def images(self) -> np.ndarray:
        if self.files is None:
            return golden_images(0, NUM_IMAGES, self.size, self.size)
        pixels = [EvalTransform((self.size, self.size))(picture) for picture in self._opened()[:NUM_IMAGES]]
        constants = self.timm.data.constants
        mean, std = np.array(constants.IMAGENET_DEFAULT_MEAN), np.array(constants.IMAGENET_DEFAULT_STD)
        return np.ascontiguousarray(((np.stack(pixels) / 255 - mean) / std).transpose(0, 3, 1, 2))

    def labels(self) -> np.ndarray:
        return np.arange(len(self.images())) % self.num_classes

    def teacher_logits(self) -> np.ndarray:
        return 3 * np.random.default_rng(2).standard_normal((len(self.images()), self.num_classes))

    def mixed_targets(self) -> np.ndarray:
        labels = self.torch.from_numpy(self.labels())
        targets = self.timm.data.mixup.mixup_target(labels, self.num_classes, MIXED, SMOOTHING)
        return targets.numpy().astype("float64")

    def pictures(self) -> dict[str, tuple[Image.Image, int, float]]:
        return {f"picture_{index}": (picture, self.size, 1.0) for index, picture in enumerate(self._opened())}

    def expected(self, step: str) -> Arrays:
        return getattr(self, f"_{step}")()

    def _forward(self) -> Arrays:
        outputs = []
        blocks = [*self.model.blocks, *self.model.blocks_token_only]
        hooks = [block.register_forward_hook(lambda module, inputs, out: outputs.append(out)) for block in blocks]
        images = self.torch.from_numpy(self.images())
        with self.torch.no_grad():
            logits = self.model(images)
            for hook in hooks:
                hook.remove()
            feature = self.model.forward_features(images)[:, 0]
        moments = [[float(out.mean()), float(out.std(unbiased=False))] for out in outputs]
        return {"logits": logits.numpy(), "cls_feature": feature.numpy(), "block_mean_std": np.array(moments)}

    def _preprocessing(self) -> Arrays:
        transform = self.timm.data.create_transform(
            self.size, interpolation="bicubic", crop_pct=1.0, use_prefetcher=True
        )  # the prefetcher normalises on the device, so this ends in uint8 pixels
        pixels = {key: np.asarray(transform(item[0])).transpose(1, 2, 0) for key, item in self.pictures().items()}
        logits, labels = (self.torch.from_numpy(array) for array in (self.teacher_logits(), self.labels()))
        correct = [float(share) / 100 * len(labels) for share in self.timm.utils.accuracy(logits, labels, topk=(1, 5))]
        constants = self.timm.data.constants
        mean, std = constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD
        normalised = ((next(iter(pixels.values())) / 255 - mean) / std).transpose(2, 0, 1)
        return pixels | {
            NORMALISED: normalised,
            "correct@1": np.array(round(correct[0])),
            "correct@5": np.array(round(correct[1])),
        }

    def _criteria(self) -> dict:
        functional = self.torch.nn.functional
        labels, teacher = self.torch.from_numpy(self.labels()), self.torch.from_numpy(self.teacher_logits())
        mixed = self.torch.from_numpy(self.mixed_targets())
        plain = self.torch.nn.CrossEntropyLoss()

        def soft(logits):
            student = functional.log_softmax(logits / TAU, dim=1)
            target = functional.log_softmax(teacher / TAU, dim=1)
            return functional.kl_div(student, target, reduction="sum", log_target=True) * TAU**2 / logits.numel()

        return {
            "cross_entropy": lambda logits: plain(logits, labels),
            "label_smoothing_0.1": lambda x: self.timm.loss.LabelSmoothingCrossEntropy(SMOOTHING)(x, labels),
            "soft_target_mixup_lam0.3_smooth0.1": lambda x: self.timm.loss.SoftTargetCrossEntropy()(x, mixed),
            "hard_distill_a0.5": lambda x: (1 - ALPHA) * plain(x, labels) + ALPHA * plain(x, teacher.argmax(1)),
            "soft_distill_a0.5_tau3": lambda x: (1 - ALPHA) * plain(x, labels) + ALPHA * soft(x),
        }

    def _backward(self, criterion) -> tuple[float, Arrays]:
        self.model.zero_grad()
        loss = criterion(self.model(self.torch.from_numpy(self.images())))
        loss.backward()
        return loss.item(), {key: p.grad.numpy().copy() for key, p in self.model.named_parameters()}

    def _losses(self) -> Arrays:
        values: Arrays = {MIXED_TARGETS: self.mixed_targets()}
        for name, criterion in self._criteria().items():
            loss, found = self._backward(criterion)
            values[f"{name}/loss"] = np.array(loss)
            values[f"{name}/grad_norm"] = np.sqrt(sum((value**2).sum() for value in found.values()))
        return values

    def _gradients(self) -> Arrays:
        _, found = self._backward(self._criteria()["cross_entropy"])
        arrays = {f"grad/{key}": value for key, value in found.items()}
        for name, (epochs, peak, start, end, warmup) in SCHEDULES.items():
            optimizer = self.torch.optim.SGD([self.torch.nn.Parameter(self.torch.zeros(1))], lr=peak)
            scheduler = self.timm.scheduler.CosineLRScheduler(
                optimizer, epochs, lr_min=end, warmup_t=warmup, warmup_lr_init=start
            )
            rates = []
            for epoch in range(epochs):
                scheduler.step(epoch)
                rates.append(optimizer.param_groups[0]["lr"])
            arrays[f"schedule/{name}"] = np.array(rates)
        return arrays

    def _training(self) -> Arrays:
        return self._train(None) | self._train(1.0)

    def _train(self, clip: float | None) -> Arrays:
        self._reset()
        named = list(self.model.named_parameters())
        groups = self.timm.optim.param_groups_weight_decay(
            self.model, TRAINING["weight_decay"], no_weight_decay_list=self.model.no_weight_decay()
        )
        optimizer = self.torch.optim.AdamW(groups, lr=TRAINING["lr"])
        images, labels = self.torch.from_numpy(self.images()), self.torch.from_numpy(self.labels())
        values = []
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            loss = self.torch.nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            if clip is not None:
                self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            optimizer.step()
            values.append(loss.item())
        sums = {f"adamw_clip{clip}/param_abs_sum/{key}": p.detach().abs().sum().numpy() for key, p in named}
        self._reset()
        return {f"adamw_clip{clip}/losses": np.array(values), **sums}
