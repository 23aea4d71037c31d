import pytest

from hack.demo.nodes import PlacedPod, choose_node, share_of

WEIGHTS = {"stable": 50, "candidate": 50}


def pod(node: str, revision: str = "", *, ready: bool = True) -> PlacedPod:
    return PlacedPod(node, revision, ready)


def chosen(*pods: PlacedPod, weights: dict[str, int] | None = None) -> tuple[str, float] | None:
    choice = choose_node(pods, WEIGHTS if weights is None else weights)
    return None if choice is None else (choice.node, choice.share)


SPREAD = (
    pod("one", "stable"),
    pod("two", "stable"),
    pod("one", "candidate"),
    pod("two", "candidate"),
)


def test_a_node_with_half_of_the_pods_has_half_of_the_requests() -> None:
    assert chosen(*SPREAD) == ("one", 0.5)


def test_the_node_of_the_load_generator_stays() -> None:
    assert chosen(*SPREAD, pod("one")) == ("two", 0.5)


def test_a_pod_that_is_not_ready_keeps_no_node() -> None:
    assert chosen(*SPREAD, pod("one", ready=False)) == ("one", 0.5)


def test_no_revision_loses_its_last_ready_pod() -> None:
    lonely = (pod("one", "stable"), pod("two", "stable"), pod("one", "candidate"))
    assert chosen(*lonely, pod("two", "candidate", ready=False)) == ("two", 0.25)
    assert chosen(pod("one", "stable"), pod("two", "candidate")) is None


def test_a_revision_without_weight_is_no_loss() -> None:
    weights = {"stable": 100, "candidate": 0}
    assert chosen(*SPREAD[:3], weights=weights) == ("one", 0.5)


@pytest.mark.parametrize("pods", [(), (pod("one"),)])
def test_where_nothing_serves_there_is_nothing_to_take_away(pods: tuple[PlacedPod, ...]) -> None:
    assert chosen(*pods) is None


def test_a_share_is_made_of_weights_and_ready_pods() -> None:
    pods = (*SPREAD, pod("one", "stable"), pod("one", "stable", ready=False))
    assert share_of("one", pods, {"stable": 75, "candidate": 25}) == pytest.approx(0.625)
    assert share_of("three", pods, WEIGHTS) == 0
