"""The networks that the inference benchmark runs, as torch modules and as model folders.

Their weights are random but seeded, and the last layer is stretched so that all eight classes
occur: what is measured is the running, not the seeing.

    python benchmarks/networks.py build/networks
"""

import argparse
import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import town
from torch import nn

BANDS = ("highres:red", "highres:green", "highres:blue")
CLASSES = (
    ("field", "D9C98B"),
    ("meadow", "9BC25B"),
    ("tree", "2E7D32"),
    ("water", "3F7CC4"),
    ("street", "8A8A8F"),
    ("house", "C0392B"),
    ("hall", "7D5BA6"),
    ("bare", "E0B080"),
)
WINDOW = 512
OPSET = 17
EXTENSIONS = "https://stac-extensions.github.io"


class Cheap(nn.Sequential):
    """Two convolutions, so that what surrounds the network shows; sees 3 pixels."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, len(CLASSES), 1))

    @property
    def last(self) -> nn.Conv2d:
        """The layer that yields logits."""
        return self[2]


class Segformer(nn.Module):
    """SegFormer with the smallest Mix Transformer; every output sees the whole window."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        # the library's defaults are those of MiT-B0
        config = SegformerConfig(num_labels=len(CLASSES))
        self.net = SegformerForSemanticSegmentation(config)

    @property
    def last(self) -> nn.Conv2d:
        """The layer that yields logits."""
        return self.net.decode_head.classifier

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits at the size of the image."""
        logits = self.net(pixel_values=image, return_dict=True).logits
        return _enlarged(logits, image)


class DeepLab(nn.Module):
    """DeepLabV3+ over a ResNet-50 whose last stage is dilated (output stride 16)."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetModel

        self.encoder = ResNetModel(ResNetConfig())
        for layer in self.encoder.encoder.stages[3].modules():
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                layer.stride = (1, 1)
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                layer.dilation, layer.padding = (2, 2), (2, 2)
        self.pyramid = nn.ModuleList(
            [_step(2048, 256, 1), *(_step(2048, 256, 3, rate) for rate in (6, 12, 18))]
        )
        self.overall = _step(2048, 256, 1)
        self.joined = _step(5 * 256, 256, 1)
        self.detail = _step(256, 48, 1)
        self.head = nn.Sequential(
            _step(256 + 48, 256, 3), _step(256, 256, 3), nn.Conv2d(256, len(CLASSES), 1)
        )

    @property
    def last(self) -> nn.Conv2d:
        """The layer that yields logits."""
        return self.head[2]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits at the size of the image."""
        levels = self.encoder(image, output_hidden_states=True).hidden_states
        deep, shallow = levels[-1], self.detail(levels[1])
        overall = _enlarged(self.overall(deep.mean((2, 3), keepdim=True)), deep)
        joined = self.joined(torch.cat([*(part(deep) for part in self.pyramid), overall], 1))
        return _enlarged(self.head(torch.cat([_enlarged(joined, shallow), shallow], 1)), image)


def _step(inputs: int, outputs: int, kernel: int, rate: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    margin = rate * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=margin, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _enlarged(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(
        values, size=like.shape[-2:], mode="bilinear", align_corners=False
    )


@dataclass(frozen=True, slots=True)
class Network:
    """A network and what its card says."""

    make: Callable[[], nn.Module]
    receptive_field: int
    global_context: bool
    window: dict[str, Any]


NETWORKS = {
    "cheap": Network(Cheap, 3, False, {"size": WINDOW, "mode": "core"}),
    "segformer-b0": Network(
        Segformer, WINDOW, True, {"size": WINDOW, "mode": "blend", "stride": 384}
    ),
    "deeplab-r50": Network(DeepLab, WINDOW, True, {"size": WINDOW, "mode": "blend", "stride": 384}),
}


def build(name: str) -> nn.Module:
    """A network with the same weights every time, ready to run."""
    torch.manual_seed(1)
    module = NETWORKS[name].make()
    sample = torch.from_numpy(np.stack([town(0, 0, 512, 512), town(4000, 900, 512, 512)]))
    sample = sample.float() / 255
    with torch.no_grad():
        _settle(module, sample)
        logits = module(sample)
        spread, middle = logits.std((0, 2, 3)), logits.mean((0, 2, 3))
        last = module.last
        if last.bias is None:
            raise TypeError(f"{name}: the last layer needs a bias")
        last.weight.div_(spread[:, None, None, None])
        last.bias.sub_(middle).div_(spread)
    return module


def _settle(module: nn.Module, sample: torch.Tensor) -> None:
    """Let the normalising layers take their figures from a sample, then freeze them."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    module.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        module(sample)
    module.eval()


def load(name: str, folder: Path) -> nn.Module:
    """The network with the weights that `export` wrote."""
    module = NETWORKS[name].make()
    module.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    return module.eval()


def export(name: str, folder: Path) -> dict[str, float]:
    """Write weights and model folders of a network.

    Returns: parameters in millions, and per form and window side the largest difference of its
        logits (their spread is 1) and the share of labels that agree with torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = build(name)
    torch.save(module.state_dict(), folder / f"{name}.pt")
    example = torch.zeros(2, 3, WINDOW, WINDOW)
    graph, script = folder / f"{name}.onnx", folder / f"{name}.ts"
    axes = {0: "n", 2: "y", 3: "x"}
    with warnings.catch_warnings():
        # both exporters are called deprecated; the newer one needs packages that nothing else does
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            str(graph),
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_axes={"image": axes, "logits": axes},
            dynamo=False,
        )
        torch.jit.trace(module, example, check_trace=False).save(str(script))
    found = {"million_parameters": sum(p.numel() for p in module.parameters()) / 1e6}
    found |= _compared(module, graph, script)
    _write_folder(folder / f"{name}-onnx", name, graph)
    _write_folder(folder / f"{name}-torchscript", name, script)
    return found


def _compared(module: nn.Module, graph: Path, script: Path) -> dict[str, float]:
    """Each form against the module, at the window's size with a batch of 3 and at another."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    traced = torch.jit.load(str(script))
    found = {}
    for batch, side in ((3, WINDOW), (1, 640)):
        image = np.stack([town(800 * n, 1300 * n, side, side) for n in range(1, batch + 1)])
        image = image.astype(np.float32) / np.float32(255)
        with torch.inference_mode():
            truth = module(torch.from_numpy(image)).numpy()
            answers = {
                "onnx": session.run(None, {"image": image})[0],
                "torchscript": traced(torch.from_numpy(image)).numpy(),
            }
        for form, answer in answers.items():
            found[f"{form}_{side}_difference"] = float(np.abs(answer - truth).max())
            same = answer.argmax(1) == truth.argmax(1)
            found[f"{form}_{side}_agreement"] = float(same.mean())
    return found


def _write_folder(folder: Path, name: str, artifact: Path) -> None:
    """Move an exported file into a model folder of its own and describe it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"model{'.onnx' if artifact.suffix == '.onnx' else '.pt'}"
    artifact.replace(target)
    item = _item(name, target)
    (folder / "item.json").write_text(json.dumps(item, indent=2) + "\n", encoding="utf-8")


def _item(name: str, artifact: Path) -> dict[str, Any]:
    """The STAC MLM item of a network."""
    network, content = NETWORKS[name], artifact.read_bytes()
    classes = [
        {"value": value, "name": title, "title": title.title(), "color_hint": color}
        for value, (title, color) in enumerate(CLASSES)
    ]
    fields = {
        "datetime": "2026-01-01T00:00:00Z",
        "license": "CC0-1.0",
        "mlm:name": name,
        "mlm:input": [
            {
                "name": "image",
                "bands": list(BANDS),
                "value_scaling": [{"type": "scale", "value": 255}],
            }
        ],
        "mlm:output": [{"name": "logits", "classification:classes": classes}],
        "mapper:receptive_field": network.receptive_field,
        "mapper:window": network.window,
    }
    if network.global_context:
        fields["mapper:global_context"] = True
    asset = {
        "href": f"./{artifact.name}",
        "roles": ["mlm:model"],
        "file:size": len(content),
        "file:checksum": f"1220{hashlib.sha256(content).hexdigest()}",
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [
            f"{EXTENSIONS}/mlm/v1.5.2/schema.json",
            f"{EXTENSIONS}/file/v2.1.0/schema.json",
        ],
        "id": name,
        "geometry": None,
        "properties": fields,
        "assets": {"model": asset},
        "links": [],
    }


def main() -> None:
    """Write all networks, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    wanted = parser.parse_args()
    for name in wanted.names:
        print(json.dumps({name: export(name, wanted.folder)}))


if __name__ == "__main__":
    main()
