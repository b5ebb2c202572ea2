"""Models as ONNX graphs, on CPUs and on CUDA devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mapper.errors import DeviceError, ModelError
from mapper.inference.card import ModelCard
from mapper.inference.compose import composed, digest_of_graph, opset_of, stored_name
from mapper.inference.composition import OURS, Composition
from mapper.inference.head import finishing_graph
from mapper.inference.runtime import Device, check_raw, checked, device_failure

_MOST_PARALLEL = 4
"""Runs at once on a CPU; each holds a batch's intermediate results."""
_PROVIDERS: dict[Device, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # full float32, as everywhere else; TF32 has to be asked for
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
    "tensorrt": [
        "TensorrtExecutionProvider",
        ("CUDAExecutionProvider", {"use_tf32": "0"}),
        "CPUExecutionProvider",
    ],
}


class OnnxRuntime:
    """ONNX Runtime; on the CPU bit-stable over batch size and threads."""

    def __init__(self, card: ModelCard, threads: int, device: Device = "cpu") -> None:
        """Read a graph and hold it against its card. Raises: ModelError."""
        import onnx
        import onnxruntime

        self._content = card.artifact.path.read_bytes()
        self._card, self._device, self._threads = card, device, threads
        try:
            model = onnx.load_model_from_string(self._content)
            opset_of(model)
            _check_whole(card, model)
            self._plain: Any = _session(self._content, threads, device)
        except (ModelError, DeviceError):
            raise
        # every library below has its own way of saying that bytes are no graph
        except Exception as reason:
            raise ModelError(
                f"model file {card.artifact.path} is no ONNX graph that can be loaded ({reason}); "
                "it may be cut off: fetch or export it again"
            ) from reason
        self.version = f"onnxruntime {onnxruntime.__version__} {device}"
        self.fixed_batch = device != "cpu"
        self.fixed_size = self._check()

    def _check(self) -> int | None:
        """Names and shapes by the card; returns the window side that the graph demands."""
        card = self._card
        inputs = {i.name: i for i in self._plain.get_inputs()}
        wanted = {card.image_input} | ({card.validity_input} if card.validity_input else set())
        if set(inputs) != wanted:
            raise ModelError(
                f"model {card.name!r} has inputs {sorted(inputs)}, its card says {sorted(wanted)}"
            )
        outputs = {o.name: o for o in self._plain.get_outputs()}
        if card.output not in outputs:
            raise ModelError(
                f"model {card.name!r} has outputs {sorted(outputs)}, its card says {card.output!r}"
            )
        for tensor in [*inputs.values(), outputs[card.output]]:
            if len(tensor.shape) != 4 or tensor.type not in ("tensor(float)", "tensor(float16)"):
                raise ModelError(
                    f"model {card.name!r}: {tensor.name!r} is {tensor.type} of {tensor.shape}; "
                    "export float32 of (batch, band, y, x)"
                )
        shape = inputs[card.image_input].shape
        self._batch = shape[0] if isinstance(shape[0], int) else None
        self._dtype = np.float16 if "16" in inputs[card.image_input].type else np.float32
        if isinstance(shape[1], int) and shape[1] != len(card.bands):
            raise ModelError(
                f"model {card.name!r} takes {shape[1]} bands, its card lists {len(card.bands)}"
            )
        classes = outputs[card.output].shape[1]
        if isinstance(classes, int) and classes != card.channels:
            raise ModelError(
                f"model {card.name!r} yields {classes} classes, its card lists "
                f"{len(card.classes.classes)}"
            )
        return shape[2] if isinstance(shape[2], int) else None

    def run(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """See `Runtime.run`."""
        card, parts = self._card, []
        session = self._plain or _session(self._content, self._threads, self._device)
        self._plain = session
        for start, stop in _pieces(len(image), self._batch):
            feed = {card.image_input: _filled(image[start:stop], self._batch)}
            if card.validity_input:
                feed[card.validity_input] = _filled(valid[start:stop], self._batch)
            cast = {name: value.astype(self._dtype) for name, value in feed.items()}
            try:
                raw = session.run([card.output], cast)[0]
            # the library's exceptions have no common root of their own
            except Exception as reason:
                raise device_failure(card, reason) from reason
            parts.append(raw[: stop - start])
        raw = np.concatenate(parts).astype(np.float32)
        check_raw(card, raw, image)
        return np.asarray(raw)

    def compose(self, composition: Composition) -> "OnnxProgram":
        """See `Runtime.compose`; the undressed session makes room."""
        self._plain = None
        return OnnxProgram(composed(self._content, composition), composition, self)

    @property
    def sessions(self) -> tuple[Device, int, int | None]:
        """Device, threads and batch that sessions of this model are made for."""
        return self._device, self._threads, self._batch


class OnnxProgram:
    """A composed graph in a session; outputs are bound, so that they are copied once."""

    def __init__(self, graph: bytes, composition: Composition, runtime: OnnxRuntime) -> None:
        """Load a composed graph."""
        device, threads, self._batch = runtime.sessions
        self.parallel = min(threads, _MOST_PARALLEL) if device == "cpu" else 1
        self.digest = digest_of_graph(graph)
        self._composition = composition
        self._names = [stored_name(layer) for layer in composition.coding.layers]
        self._session = _session(graph, max(1, threads // self.parallel), device)
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, stored: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `Program.run`."""
        count, side = len(stored[0]), stored[0].shape[-1]
        parts = [
            self._run([_filled(s[start:stop], self._batch) for s in stored], stop - start)
            for start, stop in _pieces(count, self._batch)
        ]
        found = {
            name: value if len(parts) == 1 else np.concatenate([p[name] for p in parts])
            for name, value in parts[0].items()
        }
        side -= 2 * self._composition.margin
        return checked(self._composition.card, found, (count, side))

    def _run(self, stored: Sequence[np.ndarray], count: int) -> dict[str, np.ndarray]:
        binding = self._session.io_binding()
        try:
            for name, values in zip(self._names, stored, strict=True):
                binding.bind_cpu_input(name, values)
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding)
            found = binding.copy_outputs_to_cpu()
        # the library's exceptions have no common root of their own
        except Exception as reason:
            raise device_failure(self._composition.card, reason) from reason
        names = [name.removeprefix(OURS) for name in self._outputs]
        return {n: v[:count] for n, v in zip(names, found, strict=True)}


class FinishingSession:
    """Sums of scores and weights to finished bytes, on the CPU."""

    def __init__(self, composition: Composition) -> None:
        """For what a composition wants decided."""
        self._session = _session(finishing_graph(composition), 1, "cpu")
        self._names = [o.name.removeprefix(OURS) for o in self._session.get_outputs()]

    def run(self, sums: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`(class, y, x)` and `(y, x)` float32 to arrays `(band, y, x)` by name."""
        feed = {"sums": np.ascontiguousarray(sums[None]), "weights": weights[None, None]}
        found = self._session.run(None, feed)
        return {name: values[0] for name, values in zip(self._names, found, strict=True)}


def _session(graph: bytes, threads: int, device: Device) -> Any:
    """A session that runs where it was told to. Raises: DeviceError where that is not there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # a waiting thread must not take the processor from those that read and write
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=_PROVIDERS[device])
    wanted = _PROVIDERS[device][0]
    name = wanted if isinstance(wanted, str) else wanted[0]
    if session.get_providers()[0] != name:
        raise DeviceError(
            f"ONNX Runtime cannot use {device} here: install mapper[gpu] and the driver, or use "
            "--device cpu"
        )
    return session


def _check_whole(card: ModelCard, model: Any) -> None:
    """Refuse weights beside the graph: no checksum of the card would cover them."""
    if any(weights.data_location == 1 for weights in model.graph.initializer):
        raise ModelError(
            f"model file {card.artifact.path} keeps its weights in another file; save it as one "
            "(onnx.save with save_as_external_data=False)"
        )


def _pieces(count: int, batch: int | None) -> list[tuple[int, int]]:
    """Runs of windows; a graph exported for one batch size takes no other."""
    step = batch or count
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _filled(windows: np.ndarray, size: int | None) -> np.ndarray:
    """Windows, with zeros behind where the graph wants more of them."""
    if size is None or len(windows) == size:
        return np.ascontiguousarray(windows)
    return np.pad(windows, [(0, size - len(windows)), (0, 0), (0, 0), (0, 0)])
