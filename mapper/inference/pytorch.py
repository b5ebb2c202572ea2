"""Models as PyTorch programs: TorchScript, torch.export and AOTInductor. All of them are code."""

import hashlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mapper.errors import DeviceError, MapperError, ModelError
from mapper.inference.blend import window_square
from mapper.inference.card import ModelCard
from mapper.inference.coding import Layer
from mapper.inference.composition import CHECK, CONFIDENCE_STEPS, Composition
from mapper.inference.head import is_softmax
from mapper.inference.runtime import Device, check_raw, checked, device_failure
from mapper.inference.scaling import column

COMPOSITION_VERSION = 2
"""Raised whenever decoding or deciding in torch gives other numbers."""


class TorchRuntime:
    """PyTorch; results depend on batch size and threads, so both are fixed."""

    fixed_batch = True

    def __init__(self, card: ModelCard, threads: int, device: Device = "cpu") -> None:
        """Load a program. Raises: ModelError where torch is missing or the file is broken."""
        try:
            import torch
        except ImportError as reason:
            raise ModelError(
                f"model {card.name!r} is {card.form}; install mapper[torch] to run it"
            ) from reason
        if device != "cpu" and not torch.cuda.is_available():
            raise DeviceError("PyTorch sees no CUDA device here; use --device cpu")
        self._threads = threads
        self.card, self.torch = card, torch
        self.device = "cuda" if device != "cpu" else "cpu"
        try:
            with warnings.catch_warnings():
                # TorchScript is deprecated in favour of torch.export; folders of it remain
                warnings.simplefilter("ignore")
                self.module = self._load()
        # torch has no common root for what a damaged file makes it raise
        except Exception as reason:
            raise ModelError(
                f"model file {card.artifact.path} is no {card.form} that can be loaded ({reason}); "
                "it may be cut off: fetch or export it again"
            ) from reason
        self.version = f"torch {torch.__version__} {self.device}"
        self.batch, self.fixed_size = card.artifact.shape

    def _load(self) -> Callable[..., Any]:
        path = str(self.card.artifact.path)
        match self.card.form:
            case "torchscript":
                module = self.torch.jit.load(path, map_location=self.device)
                return module.eval()  # type: ignore[no-any-return]
            case "torch-export":
                return self.torch.export.load(path).module().to(self.device)  # type: ignore[no-any-return]
            case _:
                from torch._inductor import aoti_load_package

                return aoti_load_package(path)  # type: ignore[no-any-return]

    def run(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """See `Runtime.run`."""
        torch = self.torch
        try:
            with torch.inference_mode():
                tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in (image, valid)]
                raw = self.call(*(t.to(self.device) for t in tensors)).cpu().numpy()
        except MapperError:
            raise
        # a guard of an export raises AssertionError, a script whatever its author wrote
        except Exception as reason:
            raise device_failure(self.card, reason) from reason
        check_raw(self.card, raw, image)
        return np.asarray(raw)

    def call(self, image: Any, valid: Any) -> Any:
        """The model on tensors, float32 in and out whatever its own precision."""
        torch, parts = self.torch, []
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        dtype = getattr(torch, _DTYPES[self.card.artifact.precision])
        step = self.batch or len(image)
        for start in range(0, len(image), step):
            given = [image[start : start + step].to(dtype)]
            if self.card.validity_input:
                given.append(valid[start : start + step].to(dtype))
            short = step - len(given[0])
            if short:
                given = [torch.nn.functional.pad(g, (0, 0, 0, 0, 0, 0, 0, short)) for g in given]
            raw = self.module(*given)
            if not isinstance(raw, torch.Tensor):
                raise ModelError(
                    f"model {self.card.name!r} yields a {type(raw).__name__}, not one tensor; "
                    "export it so that it returns its logits alone"
                )
            parts.append((raw[: step - short]).float())
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def compose(self, composition: Composition) -> "TorchProgram":
        """See `Runtime.compose`."""
        return TorchProgram(self, composition)


_DTYPES = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    # weights and inner results are; what enters and leaves is not
    "int8": "float32",
}


class TorchProgram:
    """A torch model between the same two steps that ONNX graphs are composed of."""

    parallel = 1

    def __init__(self, runtime: TorchRuntime, composition: Composition) -> None:
        """Dress a model."""
        self._runtime, self._composition = runtime, composition
        self._one_at_a_time = threading.Lock()
        said = [COMPOSITION_VERSION, runtime.card.digest, *composition.parts]
        self.digest = hashlib.sha256(repr(said).encode()).hexdigest()

    def run(self, stored: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `Program.run`."""
        card, torch = self._composition.card, self._runtime.torch
        try:
            with self._one_at_a_time, torch.inference_mode():
                image, valid = self._decode(stored)
                raw = self._runtime.call(image, valid)
                if raw.shape[1] != card.channels or raw.shape[2:] != image.shape[2:]:
                    check_raw(card, raw.cpu().numpy(), image.cpu().numpy())
                outputs = self._head(raw)
                found = {name: value.cpu().numpy() for name, value in outputs.items()}
        except MapperError:
            raise
        except Exception as reason:
            raise device_failure(card, reason) from reason
        side = stored[0].shape[-1] - 2 * self._composition.margin
        return checked(card, found, (len(stored[0]), side))

    def _decode(self, stored: Sequence[np.ndarray]) -> tuple[Any, Any]:
        """Stored layers to the model's input, in float32."""
        torch, coding = self._runtime.torch, self._composition.coding
        parts = []
        for layer, values in zip(coding.layers, stored, strict=True):
            tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self._runtime.device)
            # a copy even of float32, since what follows works in place
            parts.append(self._scaled(layer, tensor.to(torch.float32, copy=True)))
        if len(parts) == 1 and coding.layers[0].channels == tuple(range(coding.bands)):
            image, absent = parts[0]
            return image, self._validity(absent, image)
        count, (height, width) = len(stored[0]), stored[0].shape[-2:]
        shape = (count, coding.bands, height, width)
        image = torch.full(shape, self._composition.card.fill, device=self._runtime.device)
        missing = torch.ones(shape, dtype=torch.bool, device=self._runtime.device)
        for layer, (value, absent) in zip(coding.layers, parts, strict=True):
            places = list(layer.channels)
            image[:, places] = value
            missing[:, places] = False if absent is None else absent
        return image, self._validity(missing, image)

    def _validity(self, absent: Any, image: Any) -> Any:
        """1.0 where there is data; None for a model that does not ask."""
        if not self._composition.card.validity_input:
            return None
        torch = self._runtime.torch
        return torch.ones_like(image) if absent is None else (~absent).float()

    def _scaled(self, layer: Layer, value: Any) -> tuple[Any, Any]:
        """Scaled values, and where there are none (None: nowhere). Works in place."""
        torch, card = self._runtime.torch, self._composition.card
        absent = None
        if layer.nodata is not None:
            absent = torch.isnan(value) if np.isnan(layer.nodata) else value == layer.nodata
        scalings = [card.scaling[c].after(layer.scale, layer.offset) for c in layer.channels]
        for act, numbers, neutral in (
            (torch.mul, [s.factor for s in scalings], 1.0),
            (torch.add, [s.offset for s in scalings], 0.0),
            (torch.maximum, [s.low for s in scalings], -np.inf),
            (torch.minimum, [s.high for s in scalings], np.inf),
        ):
            if any(number != neutral for number in numbers):
                act(value, torch.from_numpy(column(numbers)).to(value.device), out=value)
        if absent is not None:
            value.masked_fill_(absent, card.fill)
        return value, absent

    def _head(self, raw: Any) -> dict[str, Any]:
        """From the model's output to what leaves."""
        torch, card, margin = self._runtime.torch, self._composition.card, self._composition.margin
        if margin:
            raw = raw[..., margin:-margin, margin:-margin]
        check = {CHECK: raw.sum(dim=(2, 3), keepdim=True)}
        if card.activation != "none" and card.temperature != 1:
            raw = raw * np.float32(1 / card.temperature)
        if card.binary:
            raw = torch.cat([torch.zeros_like(raw), raw], dim=1)
        if self._composition.scores:
            return {"scores": self._scores(raw).contiguous(), **check}
        if card.head == "values":
            return {"values": raw.contiguous(), **check}
        return {**self._decide(raw), **check}

    def _scores(self, raw: Any) -> Any:
        """What windows are summed up in, times their weights."""
        composition = self._composition
        value = raw if composition.scores == "logits" else self._probabilities(raw)
        if composition.weights == "none":
            return value
        square = window_square(composition.side, composition.weights)
        return value * self._runtime.torch.from_numpy(square.copy()).to(value.device)

    def _probabilities(self, raw: Any) -> Any:
        card = self._composition.card
        if is_softmax(card):
            return self._runtime.torch.softmax(raw, dim=1)
        return self._runtime.torch.sigmoid(raw) if card.activation == "sigmoid" else raw

    def _decide(self, raw: Any) -> dict[str, Any]:
        """Finished bytes of logits or probabilities."""
        torch, card, wanted = (
            self._runtime.torch,
            self._composition.card,
            self._composition.decision,
        )
        if card.head == "labels":
            return {"probabilities": self._steps(self._probabilities(raw))}
        most, channel = raw.max(dim=1, keepdim=True)
        found = {"classes": channel.to(torch.uint8)}
        if is_softmax(card) and not (wanted.probabilities or wanted.entropy):
            # the largest probability alone: one over the sum of exponentials
            total = raw.sub(most).exp_().sum(dim=1, keepdim=True)
            return {**found, "confidence": self._steps(total.reciprocal_())}
        value = self._probabilities(raw)
        found["confidence"] = self._steps(value.amax(dim=1, keepdim=True))
        if wanted.probabilities:
            found["probabilities"] = self._steps(value)
        if wanted.entropy:
            entropy = -(value * value.clamp(min=1e-12).log()).sum(dim=1, keepdim=True)
            classes = max(2, len(card.classes.classes))
            found["entropy"] = self._steps(entropy * np.float32(1 / np.log(classes)))
        return found

    def _steps(self, share: Any) -> Any:
        scaled = share.clamp(0, 1) * CONFIDENCE_STEPS + 0.5
        return scaled.to(self._runtime.torch.uint8)
