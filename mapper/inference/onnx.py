"""Models as ONNX graphs."""

import numpy as np

from mapper.errors import ModelError
from mapper.inference.card import ModelCard


class OnnxRuntime:
    """ONNX Runtime on the CPU; bit-stable over batch size and threads."""

    fixed_batch = False

    def __init__(self, card: ModelCard, threads: int) -> None:
        """Load a graph and hold it against its card. Raises: ModelError."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                card.artifact.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as reason:
            raise ModelError(
                f"model file {card.artifact} is no ONNX graph that can be loaded ({reason}); "
                "it may be cut off: fetch or export it again"
            ) from reason
        self._card = card
        self.version = f"onnxruntime {onnxruntime.__version__} cpu"
        self.fixed_size = self._check()

    def _check(self) -> int | None:
        """Names and shapes by the card; returns the window side that the graph demands."""
        card = self._card
        inputs = {i.name: i for i in self._session.get_inputs()}
        wanted = {card.image_input} | ({card.validity_input} if card.validity_input else set())
        if set(inputs) != wanted:
            raise ModelError(
                f"model {card.name!r} has inputs {sorted(inputs)}, its card says {sorted(wanted)}"
            )
        outputs = {o.name: o for o in self._session.get_outputs()}
        if card.output not in outputs:
            raise ModelError(
                f"model {card.name!r} has outputs {sorted(outputs)}, its card says {card.output!r}"
            )
        for tensor in [*inputs.values(), outputs[card.output]]:
            if len(tensor.shape) != 4 or tensor.type != "tensor(float)":
                raise ModelError(
                    f"model {card.name!r}: {tensor.name!r} is {tensor.type} of {tensor.shape}; "
                    "export float32 of (batch, band, y, x)"
                )
        shape = inputs[card.image_input].shape
        self._batch = shape[0] if isinstance(shape[0], int) else None
        if isinstance(shape[1], int) and shape[1] != len(card.bands):
            raise ModelError(
                f"model {card.name!r} takes {shape[1]} bands, its card lists {len(card.bands)}"
            )
        classes = outputs[card.output].shape[1]
        if isinstance(classes, int) and classes != len(card.classes.classes):
            raise ModelError(
                f"model {card.name!r} yields {classes} classes, its card lists "
                f"{len(card.classes.classes)}"
            )
        return shape[2] if isinstance(shape[2], int) else None

    def run(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """See `Runtime.run`."""
        # a graph exported for one batch size takes no other
        step = self._batch or len(image)
        parts = []
        for start in range(0, len(image), step):
            feed = {self._card.image_input: _filled(image[start : start + step], step)}
            if self._card.validity_input:
                feed[self._card.validity_input] = _filled(valid[start : start + step], step)
            parts.append(self._session.run([self._card.output], feed)[0])
        return np.concatenate(parts)[: len(image)]


def _filled(batch: np.ndarray, size: int) -> np.ndarray:
    """A batch of exactly `size` windows, with zeros behind."""
    if len(batch) == size:
        return batch
    return np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
