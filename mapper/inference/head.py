"""From logits to what is stored: probabilities, class, confidence, entropy, as ONNX nodes."""

from typing import Any

import numpy as np

from mapper.inference.blend import window_square
from mapper.inference.card import ModelCard
from mapper.inference.composition import CHECK, CONFIDENCE_STEPS, OURS, Composition, Decision, State
from mapper.inference.graph import Graph, described


def head(graph: Graph, composition: Composition, raw: str) -> list[Any]:
    """From the model's output to what leaves; returns the new outputs."""
    card, margin = composition.card, composition.margin
    value = graph.cast(raw, "float32")
    if margin:
        ends = (graph.constant(np.array(v)) for v in ([margin] * 2, [-margin] * 2, [2, 3]))
        value = graph.add("Slice", value, *ends)
    graph.reduce("ReduceSum", value, [2, 3], name=OURS + CHECK)
    check = described({CHECK: "float32"})
    if card.activation != "none":
        value = _two_classes(graph, card, _tempered(graph, card, value))
    if not composition.scores:
        state: State = "logits" if card.activation != "none" else "probabilities"
        return decide(graph, composition, value, state) + check
    _scores(graph, composition, value)
    return described({"scores": "float32"}) + check


def _scores(graph: Graph, composition: Composition, value: str) -> None:
    """What windows are summed up in, times their weights."""
    card, square = composition.card, np.ones((1, 1, 1, 1), dtype=np.float32)
    if composition.weights != "none":
        square = window_square(composition.side, composition.weights)[None, None]
    if composition.scores == "probabilities" and is_softmax(card):
        # the weights meet the sum over classes first: one pass over all classes less
        shares, total, _ = _exponentials(graph, value)
        factor = graph.add("Div", graph.constant(square), total)
        graph.add("Mul", shares, factor, name=OURS + "scores")
        return
    if composition.scores == "probabilities":
        value = probabilities(graph, card, value)
    graph.add("Mul", value, graph.constant(square), name=OURS + "scores")


def _tempered(graph: Graph, card: ModelCard, value: str) -> str:
    if card.temperature == 1:
        return value
    return graph.add("Mul", value, graph.constant(np.float32(1 / card.temperature)))


def _two_classes(graph: Graph, card: ModelCard, value: str) -> str:
    """One channel for two classes: the sigmoid of l is the softmax of (0, l)."""
    if not card.binary:
        return value
    return graph.add("Concat", graph.add("Sub", value, value), value, axis=1)


def is_softmax(card: ModelCard) -> bool:
    """True where probabilities are a softmax over the classes."""
    return card.activation == "softmax" or card.binary


def probabilities(graph: Graph, card: ModelCard, value: str) -> str:
    """Logits, scaled by temperature, to probabilities."""
    if is_softmax(card):
        shares, total, _ = _exponentials(graph, value)
        return graph.add("Div", shares, total)
    return graph.add("Sigmoid", value) if card.activation == "sigmoid" else value


def _exponentials(graph: Graph, value: str) -> tuple[str, str, str]:
    """Exponentials of logits, their sum over classes, and the logits under their maximum."""
    below = graph.add("Sub", value, graph.reduce("ReduceMax", value, [1]))
    shares = graph.add("Exp", below)
    return shares, graph.reduce("ReduceSum", shares, [1]), below


def decide(graph: Graph, composition: Composition, value: str, state: State) -> list[Any]:
    """Outputs that are stored as they are, of logits or probabilities."""
    card, wanted = composition.card, composition.decision
    if card.head == "values":
        graph.add("Identity", value, name=OURS + "values")
        return described({"values": "float32"})
    # a sigmoid's largest values are all 1: which logit is the largest is asked before
    largest = value
    if state == "logits" and (card.head == "labels" or not is_softmax(card)):
        value, state = probabilities(graph, card, value), "probabilities"
    if card.head == "labels":
        _steps(graph, value, "probabilities")
        return described({"probabilities": "uint8"})
    found = {"classes": "uint8", "confidence": "uint8"}
    channel = graph.add("ArgMax", largest, axis=1, keepdims=1)
    graph.cast(channel, "uint8", name=OURS + "classes")
    shares, total, below = (value, "", "")
    if state == "logits":
        shares, total, below = _exponentials(graph, value)
        sure = graph.add("Div", graph.constant(np.float32(1)), total)
    else:
        sure = graph.reduce("ReduceMax", value, [1])
    _steps(graph, sure, "confidence")
    if wanted.probabilities:
        _steps(graph, graph.add("Div", shares, total) if total else shares, "probabilities")
        found["probabilities"] = "uint8"
    if wanted.entropy:
        _entropy(graph, (shares, total, below), len(card.classes.classes))
        found["entropy"] = "uint8"
    return described(found)


def _entropy(graph: Graph, parts: tuple[str, str, str], classes: int) -> None:
    """Shannon entropy over its largest possible value, as steps."""
    shares, total, below = parts
    if total:
        # the log of a share is the logit under the maximum, minus log(total)
        logs = graph.add("Max", below, graph.constant(np.float32(-80)))
        mean = graph.reduce("ReduceSum", graph.add("Mul", shares, logs), [1])
        entropy = graph.add("Sub", graph.add("Log", total), graph.add("Div", mean, total))
    else:
        logs = graph.add("Log", graph.add("Max", shares, graph.constant(np.float32(1e-12))))
        entropy = graph.add("Neg", graph.reduce("ReduceSum", graph.add("Mul", shares, logs), [1]))
    scale = graph.constant(np.float32(1 / np.log(max(2, classes))))
    _steps(graph, graph.add("Mul", entropy, scale), "entropy")


def _steps(graph: Graph, share: str, name: str) -> None:
    """Shares of 0 to 1 as 0 to 250, half up."""
    clipped = graph.add("Min", share, graph.constant(np.float32(1)))
    clipped = graph.add("Max", clipped, graph.constant(np.float32(0)))
    scaled = graph.add("Mul", clipped, graph.constant(np.float32(CONFIDENCE_STEPS)))
    graph.cast(graph.add("Add", scaled, graph.constant(np.float32(0.5))), "uint8", name=OURS + name)


def _largest(graph: Graph) -> list[Any]:
    """Class and confidence of weighted sums of probabilities."""
    channel = graph.add("ArgMax", "sums", axis=1, keepdims=1)
    graph.cast(channel, "uint8", name=OURS + "classes")
    most = graph.reduce("ReduceMax", "sums", [1])
    _steps(graph, graph.add("Div", most, "weights"), "confidence")
    return described({"classes": "uint8", "confidence": "uint8"})


def finishing_graph(composition: Composition) -> bytes:
    """A graph from sums of scores and of weights to what is stored.

    Inputs: `sums` `(1, class, y, x)` and `weights` `(1, 1, y, x)`, float32.
    """
    from onnx import TensorProto, helper

    graph, card, wanted = Graph(17, "mapper_finish"), composition.card, composition.decision
    logits = composition.scores == "logits" and card.activation != "none"
    if card.head == "classes" and not logits and wanted == Decision():
        # weights are the same for all classes: only what is stored has to be divided
        outputs = _largest(graph)
    else:
        value = graph.add("Div", "sums", "weights")
        outputs = decide(graph, composition, value, "logits" if logits else "probabilities")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, "y", "x"])
        for name, count in (("sums", "class"), ("weights", 1))
    ]
    made = helper.make_graph(graph.nodes, "finish", inputs, outputs, graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))
