"""Nodes and constants of an ONNX graph, written the way its opset wants them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mapper.inference.composition import OURS


class Graph:
    """Nodes and constants for an ONNX graph, each result named after its number."""

    def __init__(self, opset: int, prefix: str) -> None:
        """Operators are written the way an opset wants them."""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._opset, self._prefix = opset, prefix

    def constant(self, value: Any) -> str:
        """A constant's name."""
        from onnx import numpy_helper

        name = f"{self._prefix}_c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """The name of an operator's result."""
        from onnx import helper

        name = name or f"{self._prefix}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def reduce(self, operator: str, source: str, axes: Sequence[int], name: str = "") -> str:
        """A reduction that keeps its axes; where they are given differs with the opset."""
        since = 13 if operator == "ReduceSum" else 18
        if self._opset >= since:
            where = self.constant(np.array(axes, dtype=np.int64))
            return self.add(operator, source, where, name=name, keepdims=1)
        return self.add(operator, source, name=name, axes=list(axes), keepdims=1)

    def cast(self, source: str, to: str, name: str = "") -> str:
        """A conversion to a numpy type."""
        from onnx import helper

        number = helper.np_dtype_to_tensor_dtype(np.dtype(to))
        return self.add("Cast", source, name=name, to=number)


def described(names: Mapping[str, str]) -> list[Any]:
    """Outputs of a graph by name and numpy type, all of four axes."""
    from onnx import helper

    return [
        helper.make_tensor_value_info(
            OURS + name,
            helper.np_dtype_to_tensor_dtype(np.dtype(kind)),
            ["batch", "class", None, None],
        )
        for name, kind in names.items()
    ]
