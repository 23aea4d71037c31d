"""The demo's models: `MODELS` is the table of versions, with how each comes about."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from hack.demo.digits import INPUT_NAME, OUTPUT_NAME, SEED, Digits
from hack.demo.useless import add_useless_work
from model_server.digest import digest_of

EPOCHS: Final = 12

SLOW_BY_S: Final = 0.45
"""Above the 0.4 s between two requests to one of two pods at the first weight: they queue up.

Not by much: the last of the queue is answered before its client gives up.
"""

FINE_INK: Final = 4.0
KEPT_SHARE: Final = 0.97
"""Version 6 is trimmed to the ink of these images: 3 of 100 have more."""

OLD_ORDER: Final = [0, 7, 2, 3, 4, 5, 6, 1, 8, 9]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An entry of the table: how a version comes about.

    Attributes:
        version: Number of the version.
        title: What it is, in a few words.
        export: Trains it, writes the ONNX file and returns its digest.
        flaw: The mistake in it; empty for a sound one.
        publish: What happens to the file after it was measured; takes its path and digest, returns
            the digest that users are told.
    """

    version: int
    title: str
    export: Callable[[Digits, Path], str]
    flaw: str = ""
    publish: Callable[[Path, str], str] = lambda _path, digest: digest


def export_softmax(data: Digits, path: Path) -> str:
    """Version 1: softmax regression."""
    from hack.demo import networks  # noqa: PLC0415 - torch takes seconds to import

    network = networks.fit(
        networks.Softmax, data.train_pixels, data.train_labels, epochs=EPOCHS, seed=SEED
    )
    return networks.export(network, data.train_pixels[:8], path, INPUT_NAME, OUTPUT_NAME)


def export_convolutional(
    data: Digits, path: Path, *, epochs: int = EPOCHS, seed: int = SEED
) -> str:
    """Version 2: a small convolutional network."""
    from hack.demo import networks  # noqa: PLC0415 - as above

    network = networks.fit(
        networks.Convolutional, data.train_pixels, data.train_labels, epochs=epochs, seed=seed
    )
    return networks.export(network, data.train_pixels[:8], path, INPUT_NAME, OUTPUT_NAME)


def export_trimmed(data: Digits, path: Path) -> str:
    """Version 3: sound in training, but its export trims a table to the average images."""
    from hack.demo import networks  # noqa: PLC0415 - as above

    network = networks.fit(
        networks.InkAware, data.train_pixels, data.train_labels, epochs=EPOCHS, seed=SEED
    )
    averages = np.stack(
        [data.train_pixels[data.train_labels == digit].mean(axis=0) for digit in range(10)]
    )
    trimmed = networks.trim_ink_table(network, averages)
    return networks.export(trimmed, averages, path, INPUT_NAME, OUTPUT_NAME)


def export_another(data: Digits, path: Path) -> str:
    """Version 5, as it was meant: the convolutional network with another seed."""
    return export_convolutional(data, path, seed=SEED + 1)


def export_reordered(data: Digits, path: Path) -> str:
    """Version 6: trimmed with more care, but with the classes in an old order."""
    from hack.demo import networks  # noqa: PLC0415 - as above

    network = networks.fit(
        lambda: networks.InkAware(FINE_INK),
        data.train_pixels,
        data.train_labels,
        epochs=EPOCHS,
        seed=SEED,
    )
    trimmed = networks.trim_ink_table(network, data.train_pixels, KEPT_SHARE)
    wrong = networks.Reordered(trimmed, OLD_ORDER).eval()
    ink = data.train_pixels.sum(axis=1)
    thin = data.train_pixels[ink <= np.median(ink)]
    return networks.export(wrong, thin[:8], path, INPUT_NAME, OUTPUT_NAME)


def export_longer(data: Digits, path: Path) -> str:
    """Version 7: the convolutional network, trained twice as long."""
    return export_convolutional(data, path, epochs=2 * EPOCHS, seed=SEED + 2)


def publish_slowed_down(path: Path, _digest: str) -> str:
    """Leaves a debugging loop in the model."""
    add_useless_work(path, INPUT_NAME, OUTPUT_NAME, SLOW_BY_S)
    return digest_of(path)


def publish_broken_off(path: Path, digest: str) -> str:
    """Uploads the first half only, and tells the digest of the whole."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return digest


MODELS: tuple[ModelVersion, ...] = (
    ModelVersion(1, "softmax regression", export_softmax),
    ModelVersion(2, "convolutional network", export_convolutional),
    ModelVersion(
        3,
        "ink-aware network, exported wrongly",
        export_trimmed,
        flaw=(
            "the export trimmed the ink table to the ten average images, on which its parity check "
            "passed: an image with more ink indexes past the end of the table"
        ),
    ),
    ModelVersion(
        4,
        "version 2 with a loop left in",
        export_convolutional,
        flaw=f"right, but it computes {SLOW_BY_S:g} s for nothing before each answer",
        publish=publish_slowed_down,
    ),
    ModelVersion(
        5,
        "convolutional network, upload broken off",
        export_another,
        flaw="half of the file is missing, so that it is not what its digest says",
        publish=publish_broken_off,
    ),
    ModelVersion(
        6,
        "ink-aware network, classes in an old order",
        export_reordered,
        flaw="it takes ones for sevens and sevens for ones, and has no row for the thickest pens",
    ),
    ModelVersion(7, "convolutional network, trained longer", export_longer),
)
