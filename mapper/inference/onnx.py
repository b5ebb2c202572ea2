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
        shape = inputs[card.image_input].shape
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
        card = self._card
        feed = {card.image_input: image}
        if card.validity_input:
            feed[card.validity_input] = valid
        return np.asarray(self._session.run([card.output], feed)[0])
