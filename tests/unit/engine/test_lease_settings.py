"""Settings of the lease: together they must leave room between giving up and taking over."""

from __future__ import annotations

import pytest

from model_operator.settings import LeaseSettings, SettingsError, read_settings

IMAGE = {"MODEL_OPERATOR_SERVER_IMAGE": "registry.example/server:1"}


def test_every_variable_of_the_lease_arrives() -> None:
    settings = read_settings(
        IMAGE
        | {
            "POD_NAME": "model-operator-5d9c-x",
            "MODEL_OPERATOR_LEASE_ENABLED": "false",
            "MODEL_OPERATOR_LEASE_NAME": "other",
            "MODEL_OPERATOR_LEASE_SECONDS": "30",
            "MODEL_OPERATOR_LEASE_RENEW_SECONDS": "20.5",
            "MODEL_OPERATOR_LEASE_RETRY_SECONDS": "3",
        }
    )
    assert settings.lease == LeaseSettings(
        enabled=False,
        name="other",
        identity="model-operator-5d9c-x",
        duration_s=30,
        renew_s=20.5,
        retry_s=3.0,
    )


def test_a_dead_leader_is_replaced_within_twenty_seconds_by_default() -> None:
    lease = read_settings(IMAGE).lease
    assert lease.enabled
    # its time, the look that missed its last renewal, and the first lists with a margin
    assert lease.duration_s + lease.retry_s <= 15


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_ENABLED", "perhaps"),
        ("LEASE_SECONDS", "12.5"),
        ("LEASE_SECONDS", "8"),
        ("LEASE_RENEW_SECONDS", "12"),
        ("LEASE_RENEW_SECONDS", "2"),
        ("LEASE_RETRY_SECONDS", "9"),
    ],
)
def test_times_that_leave_no_room_are_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"MODEL_OPERATOR_{name}"):
        read_settings(IMAGE | {f"MODEL_OPERATOR_{name}": value})
