"""The digit classifiers of the demo as torch modules, how they are trained and exported.

All take float32 `pixels` of shape (batch, 64), grey levels 0 to 16 in row order, and answer
`logits` of shape (batch, 10).
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model_server.export import export_module

PIXEL_MAX = 16.0
INK_PER_LEVEL = 8.0
INK_MAX = 64 * PIXEL_MAX
BATCH_SIZE = 64
LEARNING_RATE = 3e-3

Pixels = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Network = TypeVar("Network", bound=nn.Module)


class Softmax(nn.Module):
    """Softmax regression: one weight for each pixel and digit."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 10)."""
        logits: torch.Tensor = self.linear(pixels / PIXEL_MAX)
        return logits


class Convolutional(nn.Module):
    """Two convolutions and a hidden layer: neighbouring pixels are seen together."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 10)."""
        image = (pixels / PIXEL_MAX).reshape(-1, 1, 8, 8)
        logits: torch.Tensor = self.classifier(self.features(image))
        return logits


class InkAware(nn.Module):
    """The convolutional network, corrected by how much ink the writer used.

    The total ink of an image is cut into levels, and each level has an embedding that is added to
    the logits: thin and thick pens get different priors.
    """

    def __init__(self, per_level: float = INK_PER_LEVEL, levels: int | None = None) -> None:
        super().__init__()
        self.per_level = per_level
        self.network = Convolutional()
        self.ink = nn.Embedding(levels or int(INK_MAX / per_level) + 1, 10)
        nn.init.zeros_(self.ink.weight)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 10)."""
        logits: torch.Tensor = self.network(pixels) + self.ink(self.ink_level(pixels))
        return logits

    def ink_level(self, pixels: torch.Tensor) -> torch.Tensor:
        """The row of the ink table for each image: int64 of shape (batch,)."""
        return (pixels.sum(dim=1) / self.per_level).to(torch.int64)


class Reordered(nn.Module):
    """A network whose answers come out in another order of the classes than it was trained with."""

    order: torch.Tensor

    def __init__(self, network: nn.Module, order: list[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("order", torch.tensor(order))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, 10)."""
        logits: torch.Tensor = self.network(pixels).index_select(1, self.order)
        return logits


def trim_ink_table(network: InkAware, calibration: Pixels, share: float = 1.0) -> InkAware:
    """A copy that keeps only the ink levels that `share` of the images in `calibration` need.

    It is the usual saving of vocabulary trimming, and only as good as its calibration set: an image
    with more ink than those indexes past the end of the table.
    """
    levels = network.ink_level(torch.from_numpy(calibration)).to(torch.float32)
    kept = int(torch.quantile(levels, share, interpolation="lower")) + 1
    trimmed = InkAware(network.per_level, kept)
    weights = network.state_dict()
    trimmed.load_state_dict({**weights, "ink.weight": weights["ink.weight"][:kept]})
    return trimmed.eval()


def fit(
    make: Callable[[], Network], pixels: Pixels, labels: Labels, *, epochs: int, seed: int
) -> Network:
    """A new network, trained with Adam; the same seed gives the same weights."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = make()
    inputs, targets = torch.from_numpy(pixels), torch.from_numpy(labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
            torch.autograd.backward(loss)
            optimiser.step()
    return network.eval()


def export(
    network: nn.Module, examples: Pixels, path: Path, input_name: str, output_name: str
) -> str:
    """Writes `network` to an ONNX file, compares the two on `examples`, and returns the digest."""
    # It warns of every extension that is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    exported = export_module(network, {input_name: examples}, path, output_names=[output_name])
    return exported.digest
