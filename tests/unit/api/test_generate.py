"""Generated files follow the types, and drift is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.generate.__main__ import main


def test_the_committed_files_are_those_that_the_types_make(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["--check"])

    assert (code, capsys.readouterr().out) == (0, "")


def test_a_file_that_was_edited_or_forgotten_fails_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([], root=tmp_path)
    assert main(["--check"], root=tmp_path) == 0
    edited = tmp_path / "crds" / "modeldeployment.dev_modeldeployments.yaml"
    edited.write_text(edited.read_text().replace("maxItems: 32", "maxItems: 33"))
    (tmp_path / "crds" / "modeldeployment.dev_olds.yaml").write_text("kind: Old\n")
    (tmp_path / "charts/model-operator/files/crds/modeldeployment.dev_metricsources.yaml").unlink()
    capsys.readouterr()

    code = main(["--check"], root=tmp_path)

    said = capsys.readouterr().out
    assert code == 1
    assert said.count("differs") == 3
    main([], root=tmp_path)
    assert main(["--check"], root=tmp_path) == 0
