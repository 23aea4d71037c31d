"""Settings come from the environment, and one that cannot be read is named."""

from __future__ import annotations

import pytest

from model_operator.settings import EngineSettings, SettingsError, read_settings

IMAGE = {"MODEL_OPERATOR_SERVER_IMAGE": "registry.example/server:1"}


def test_only_the_image_is_needed() -> None:
    settings = read_settings(IMAGE)
    assert settings.server.image == "registry.example/server:1"
    assert settings.engine == EngineSettings()
    assert settings.cluster.kubeconfig is None
    assert settings.cluster.namespaces == ()


def test_every_variable_arrives() -> None:
    settings = read_settings(
        IMAGE
        | {
            "KUBECONFIG": "/k",
            "MODEL_OPERATOR_NAMESPACES": "a,b",
            "MODEL_OPERATOR_NAMESPACE": "own",
            "MODEL_OPERATOR_WORKERS": "3",
            "MODEL_OPERATOR_RELIST_SECONDS": "60",
            "MODEL_OPERATOR_SETTLE_SECONDS": "0.5",
            "MODEL_OPERATOR_DRAIN_GIVE_UP_SECONDS": "30",
            "MODEL_OPERATOR_API_TIMEOUT_SECONDS": "4",
            "MODEL_OPERATOR_TEST_DISABLE_ROLLBACK": "true",
            "MODEL_OPERATOR_HEALTH_HOST": "127.0.0.1",
            "MODEL_OPERATOR_HEALTH_PORT": "0",
            "MODEL_OPERATOR_LOG_LEVEL": "debug",
        }
    )
    assert settings.cluster.kubeconfig == "/k"
    assert settings.cluster.namespaces == ("a", "b")
    assert settings.cluster.own_namespace == "own"
    assert settings.cluster.timeout_s == 4.0
    assert settings.engine == EngineSettings(3, 60.0, 0.5, 30.0, rollback_enabled=False)
    assert (settings.telemetry.host, settings.telemetry.port) == ("127.0.0.1", 0)
    assert settings.telemetry.log_level == "debug"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_IMAGE", " "),
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("RELIST_SECONDS", "-1"),
        ("SETTLE_SECONDS", "soon"),
        ("TEST_DISABLE_ROLLBACK", "maybe"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MODEL_OPERATOR_{name}"):
        read_settings(IMAGE | {f"MODEL_OPERATOR_{name}": value})
