"""The demo's data set: scikit-learn's digits, 1,797 real scans of 8x8 pixels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SEED = 7
TEST_SHARE = 0.4
INPUT_NAME = "pixels"
OUTPUT_NAME = "logits"

Pixels = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Digits:
    """The data set, split by class with a fixed seed.

    Attributes:
        train_pixels: float32 of shape (images, 64), grey levels 0 to 16.
        train_labels: int64 of shape (images,), the digit that was meant.
        test_pixels: As `train_pixels`; never seen in training.
        test_labels: As `train_labels`.
    """

    train_pixels: Pixels
    train_labels: Labels
    test_pixels: Pixels
    test_labels: Labels


def load_data() -> Digits:
    """The digits, split into training and test images."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second to import, often cached
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - as above

    pixels, labels = load_digits(return_X_y=True)
    train_pixels, test_pixels, train_labels, test_labels = train_test_split(
        pixels.astype(np.float32),
        labels.astype(np.int64),
        test_size=TEST_SHARE,
        stratify=labels,
        random_state=SEED,
    )
    return Digits(train_pixels, train_labels, test_pixels, test_labels)
