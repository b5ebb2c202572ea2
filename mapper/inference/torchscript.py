"""Models as TorchScript: code, so they run from trusted folders alone."""

import warnings

import numpy as np

from mapper.errors import ModelError
from mapper.inference.card import ModelCard


class TorchScriptRuntime:
    """TorchScript on the CPU; its results depend on batch size and threads, so both are fixed."""

    fixed_batch = True
    fixed_size: int | None = None

    def __init__(self, card: ModelCard, threads: int) -> None:
        """Load a module. Raises: ModelError where torch is missing or the file is broken."""
        try:
            import torch
        except ImportError as reason:
            raise ModelError(
                f"model {card.name!r} is TorchScript; install mapper[torch] to run it"
            ) from reason
        torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                # TorchScript is deprecated in favour of torch.export; folders of it remain
                warnings.simplefilter("ignore")
                self._module = torch.jit.load(str(card.artifact), map_location="cpu").eval()
        except (RuntimeError, ValueError) as reason:
            raise ModelError(
                f"model file {card.artifact} is no TorchScript that can be loaded ({reason}); "
                "it may be cut off: fetch or export it again"
            ) from reason
        self._torch = torch
        self._card = card
        self.version = f"torch {torch.__version__} cpu"

    def run(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """See `Runtime.run`."""
        tensors = [self._torch.from_numpy(image)]
        if self._card.validity_input:
            tensors.append(self._torch.from_numpy(valid))
        with self._torch.inference_mode():
            return np.asarray(self._module(*tensors).numpy())
