"""Trains the demo's models on scikit-learn's digits: 1,797 real scans of 8x8 pixels.

`MODELS` is the table of versions. Each is trained, exported to ONNX by the server's own exporter
and measured with ONNX Runtime on the test images, which the load generator later sends through the
gateway. The results are cached by what they are made from.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hack.demo.cache import cache_dir, content_key

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


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One version of the model, ready to be served.

    Attributes:
        version: Number of the version, 1 and up.
        title: What it is, in a few words.
        flaw: The mistake that was made with it; empty for a sound one.
        path: The ONNX file.
        digest: `sha256:...` of the file.
        accuracy: Share of right answers among the test images that it answers, 0 to 1.
        failing_share: Share of the test images that ONNX Runtime cannot run, 0 to 1.
    """

    version: int
    title: str
    flaw: str
    path: Path
    digest: str
    accuracy: float
    failing_share: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An entry of the table: how a version comes about.

    Attributes:
        version: Number of the version.
        title: What it is, in a few words.
        export: Trains it, writes the ONNX file and returns its digest.
        flaw: The mistake in it; empty for a sound one.
    """

    version: int
    title: str
    export: Callable[[Digits, Path], str]
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class Models:
    """What training gives: the models and the requests to send to them.

    Attributes:
        versions: The models, in the order of the table.
        requests: JSON file with `input`, `output`, `images` (lists of 64 grey levels) and `labels`.
    """

    versions: tuple[TrainedModel, ...]
    requests: Path


def load_data() -> Digits:
    """The digits, split into training and test images."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second to import, often cached
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    pixels, labels = load_digits(return_X_y=True)
    train_pixels, test_pixels, train_labels, test_labels = train_test_split(
        pixels.astype(np.float32),
        labels.astype(np.int64),
        test_size=TEST_SHARE,
        stratify=labels,
        random_state=SEED,
    )
    return Digits(train_pixels, train_labels, test_pixels, test_labels)


def export_softmax(data: Digits, path: Path) -> str:
    """Version 1: softmax regression."""
    from hack.demo import networks  # noqa: PLC0415 - torch takes seconds to import

    network = networks.fit(
        networks.Softmax, data.train_pixels, data.train_labels, epochs=12, seed=SEED
    )
    return networks.export(network, data.train_pixels[:8], path, INPUT_NAME, OUTPUT_NAME)


def export_convolutional(data: Digits, path: Path) -> str:
    """Version 2: a small convolutional network."""
    from hack.demo import networks  # noqa: PLC0415

    network = networks.fit(
        networks.Convolutional, data.train_pixels, data.train_labels, epochs=12, seed=SEED
    )
    return networks.export(network, data.train_pixels[:8], path, INPUT_NAME, OUTPUT_NAME)


def export_trimmed(data: Digits, path: Path) -> str:
    """Version 3: sound in training, but its export trims a table to the average images."""
    from hack.demo import networks  # noqa: PLC0415

    network = networks.fit(
        networks.InkAware, data.train_pixels, data.train_labels, epochs=12, seed=SEED
    )
    averages = np.stack(
        [data.train_pixels[data.train_labels == digit].mean(axis=0) for digit in range(10)]
    )
    trimmed = networks.trim_ink_table(network, averages)
    return networks.export(trimmed, averages, path, INPUT_NAME, OUTPUT_NAME)


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
)


def trained_models(table: tuple[ModelVersion, ...] = MODELS) -> Models:
    """The models of `table`, trained if the cache has none that were made from the same things."""
    home = cache_dir() / "demo-models" / _cache_key(table)
    if not (home / "models.json").exists():
        _train_all(table, home)
    entries = json.loads((home / "models.json").read_text())
    versions = tuple(TrainedModel(**{**entry, "path": home / entry["path"]}) for entry in entries)
    return Models(versions=versions, requests=home / "requests.json")


def measure(path: Path, pixels: Pixels, labels: Labels) -> tuple[float, float]:
    """Accuracy over the images that the model at `path` answers, and the share that it cannot.

    Images are run one by one, as the load generator sends them.
    """
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    right = failed = 0
    for image, label in zip(pixels, labels, strict=True):
        try:
            (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: image[np.newaxis]})
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument:
            failed += 1
        else:
            right += int(np.argmax(logits)) == label
    answered = len(labels) - failed
    return (right / answered if answered else 0.0), failed / len(labels)


def _train_all(table: tuple[ModelVersion, ...], home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    data = load_data()
    entries = []
    for model in table:
        path = home / f"digits-{model.version}.onnx"
        digest = model.export(data, path)
        accuracy, failing_share = measure(path, data.test_pixels, data.test_labels)
        trained = TrainedModel(
            version=model.version,
            title=model.title,
            flaw=model.flaw,
            path=path,
            digest=digest,
            accuracy=accuracy,
            failing_share=failing_share,
        )
        entries.append({**asdict(trained), "path": path.name})
    requests = {
        "input": INPUT_NAME,
        "output": OUTPUT_NAME,
        "images": data.test_pixels.astype(int).tolist(),
        "labels": data.test_labels.tolist(),
    }
    (home / "requests.json").write_text(json.dumps(requests, separators=(",", ":")))
    # NB: written last and at once; its presence says that the rest is complete.
    partial = home / "models.json.partial"
    partial.write_text(json.dumps(entries, indent=2))
    partial.replace(home / "models.json")


def _cache_key(table: tuple[ModelVersion, ...]) -> str:
    exporter = find_spec("model_server.export")
    sources = [Path(__file__), Path(__file__).with_name("networks.py")]
    if exporter is not None and exporter.origin is not None:
        sources.append(Path(exporter.origin))
    made_from = [source.read_bytes() for source in sources]
    made_from += [
        f"{package}=={version(package)}".encode()
        for package in ("torch", "onnxscript", "scikit-learn", "numpy")
    ]
    made_from += [f"{model.version} {model.title}".encode() for model in table]
    return content_key(made_from)
