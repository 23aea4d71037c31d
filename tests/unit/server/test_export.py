import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_server.digest import digest_of
from model_server.export import ExportError, export_module, load_module, main, parse_input
from model_server.model import Run, SessionSettings, load_model

# Importable as `tests.unit.server.test_export:classifier` by the command line.


class Classifier(torch.nn.Module):
    """Answers the label and the scores of 4 features."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.dropout(self.linear(features)).softmax(-1)
        return scores.argmax(-1), scores


class NondeterministicModule(torch.nn.Module):
    """Answers something else each time, so that no export can agree with it."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + torch.rand_like(features)


class Unexportable(torch.nn.Module):
    """Looks at its values, which a graph cannot."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features if features.sum().item() > 0 else -features


class Labels(torch.nn.Module):
    """Answers labels around 1,000. The export's are one more: within what numbers may differ by."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        off = 1 if torch.compiler.is_exporting() else 0
        if self.dtype is torch.bool:
            return features.sum(-1) > 2 + 10 * off
        return features.sum(-1).to(self.dtype) + 1001 + off


class Answers(torch.nn.Module):
    """Answers its features and something else."""

    def __init__(self, second: object) -> None:
        super().__init__()
        self.second = second

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, object]:
        second = features.to(self.second) if isinstance(self.second, torch.dtype) else self.second
        return 2 * features, second


def classifier() -> torch.nn.Module:
    torch.manual_seed(7)
    return Classifier()


EXAMPLE = {"features": np.ones((1, 4), np.float32)}


def test_an_export_answers_like_torch_for_any_batch_size(tmp_path: Path) -> None:
    module = classifier()
    several = {"features": np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)}

    result = export_module(
        module,
        EXAMPLE,
        tmp_path / "model.onnx",
        output_names=["label", "scores"],
        parity_inputs=several,
    )

    assert result.digest == digest_of(tmp_path / "model.onnx")
    assert result.compared_values == 5 + 5 * 3
    assert result.max_abs_difference < 1e-5
    assert [spec.name for spec in result.signature.outputs] == ["label", "scores"]
    assert result.signature.inputs[0].protocol_shape == [-1, 4]
    model = load_model(result.path, SessionSettings())
    label, _ = model.run(model.signature.outputs, several, Run())
    with torch.no_grad():
        expected, _ = module(torch.from_numpy(several["features"]))
    assert label.tolist() == expected.tolist()
    assert list(tmp_path.iterdir()) == [result.path]


def test_the_same_module_gives_the_same_digest_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = export_module(classifier(), EXAMPLE, tmp_path / "a" / "model.onnx")
    monkeypatch.chdir(tmp_path)
    second = export_module(classifier(), EXAMPLE, Path("b/other.onnx"))

    assert first.digest == second.digest
    assert str(Path(__file__).parent).encode() not in first.path.read_bytes()


def test_an_export_that_answers_something_else_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="differs from torch's in"):
        export_module(NondeterministicModule(), EXAMPLE, tmp_path / "model.onnx")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.int64, r"at \(0,\): 1006, torch 1005 \(int64 has to be equal\)"),
        (torch.int32, r"at \(0,\): 1006, torch 1005 \(int32 has to be equal\)"),
        (torch.bool, r"at \(0,\): False, torch True \(bool has to be equal\)"),
    ],
    ids=str,
)
def test_a_label_that_is_off_by_one_is_no_rounding(
    tmp_path: Path, dtype: torch.dtype, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_module(Labels(dtype), EXAMPLE, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (3, "output 1 of the module is 3, of type int"),
        ("cat", "output 1 of the module is 'cat', of type str"),
        (torch.bfloat16, "is of type torch.bfloat16, which numpy does not have"),
    ],
)
def test_an_output_that_is_no_tensor_is_named(tmp_path: Path, second: object, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export_module(Answers(second), EXAMPLE, tmp_path / "model.onnx")


def test_an_output_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    result = export_module(Answers(None), EXAMPLE, tmp_path / "model.onnx")

    assert len(result.signature.outputs) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": np.ones((2, 4), np.float64)}, "torch does not run on the parity inputs"),
        ({"other": np.ones((2, 4), np.float32)}, r"parity inputs are \['other'\]"),
    ],
)
def test_parity_inputs_that_do_not_fit_are_named(
    tmp_path: Path, wrong: dict[str, np.ndarray[Any, Any]], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_module(classifier(), EXAMPLE, tmp_path / "model.onnx", parity_inputs=wrong)

    assert list(tmp_path.iterdir()) == []


def test_what_torch_cannot_export_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="torch cannot export the module"):
        export_module(Unexportable(), EXAMPLE, tmp_path / "model.onnx")


def test_the_command_exports_a_checkpoint_and_prints_its_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = classifier()
    with torch.no_grad():
        trained.get_parameter("linear.bias").fill_(3.0)
    torch.save(trained.state_dict(), tmp_path / "checkpoint.pt")
    np.savez(tmp_path / "parity.npz", features=np.zeros((2, 4), np.float32))
    output = tmp_path / "model.onnx"

    code = main(
        [
            "--module=tests.unit.server.test_export:classifier",
            f"--checkpoint={tmp_path / 'checkpoint.pt'}",
            "--input=features=float32[1,4]",
            f"--parity-inputs={tmp_path / 'parity.npz'}",
            f"--output={output}",
            "--dynamic-batch",
        ]
    )

    assert code == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{digest_of(output)}  {output}"


def test_the_command_fails_when_the_answers_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        [
            "--module=tests.unit.server.test_export:NondeterministicModule",
            "--input=features=float32[2,4]",
            f"--output={tmp_path / 'model.onnx'}",
        ]
    )

    assert code == 1
    assert "differs from torch's" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tests.unit.server.test_export:absent", "cannot be imported"),
        ("no_such_package_here:x", "cannot be imported"),
        (":", "cannot be imported"),
        ("tests.unit.server.test_export:EXAMPLE", "is a dict, not a torch module"),
    ],
)
def test_a_module_that_is_none_is_named(spec: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        load_module(spec, None)


def test_a_checkpoint_of_another_module_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "checkpoint.pt")

    with pytest.raises(ExportError, match=r"checkpoint\.pt cannot be loaded"):
        load_module("tests.unit.server.test_export:classifier", tmp_path / "checkpoint.pt")


def test_an_input_is_a_name_a_type_and_a_shape() -> None:
    spec = parse_input("image=float32[1, 3,224,224]")

    assert (spec.name, spec.dtype.name, spec.shape) == ("image", "float32", (1, 3, 224, 224))


@pytest.mark.parametrize("text", ["image", "image=float32", "image=nope[1]", "image=float32[a]"])
def test_an_input_that_is_something_else_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_input(text)
