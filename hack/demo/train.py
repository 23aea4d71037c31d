"""Trains models on scikit-learn's digits: 1,797 real scans of 8x8 pixels.

Each version of a table is trained, exported to ONNX by the server's own exporter and measured with
ONNX Runtime on the test images, which the load generator later sends through the gateway. The
results are cached by what they are made from.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hack.demo.cache import cache_dir, content_key
from hack.demo.digits import INPUT_NAME, OUTPUT_NAME, Labels, Pixels, load_data
from hack.demo.versions import MODELS, ModelVersion

__all__ = [
    "INPUT_NAME",
    "MODELS",
    "OUTPUT_NAME",
    "Models",
    "TrainedModel",
    "load_data",
    "measure",
    "trained_models",
]


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One version of the model, ready to be served.

    Attributes:
        version: Number of the version, 1 and up.
        title: What it is, in a few words.
        flaw: The mistake that was made with it; empty for a sound one.
        path: The ONNX file.
        digest: `sha256:...` that users are told; of the file, unless the version's flaw is that.
        accuracy: Share of right answers among the test images that it answers, 0 to 1; of the
            model as it was meant, where the file is no model.
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
class Models:
    """What training gives: the models and the requests to send to them.

    Attributes:
        versions: The models, in the order of the table.
        requests: JSON file with `input`, `output`, `images` (lists of 64 grey levels) and `labels`.
    """

    versions: tuple[TrainedModel, ...]
    requests: Path


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
    import onnxruntime as ort  # noqa: PLC0415 - slow to import, and models are often cached

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
        digest = model.publish(path, digest)
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
    own = ("train.py", "digits.py", "versions.py", "networks.py", "useless.py")
    sources = [Path(__file__).with_name(name) for name in own]
    if exporter is not None and exporter.origin is not None:
        sources.append(Path(exporter.origin))
    made_from = [source.read_bytes() for source in sources]
    made_from += [
        f"{package}=={version(package)}".encode()
        for package in ("torch", "onnxscript", "scikit-learn", "numpy")
    ]
    made_from += [f"{model.version} {model.title}".encode() for model in table]
    return content_key(made_from)
