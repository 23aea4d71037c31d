import json

import pytest

from hack.demo.loadgen.answers import GATEWAY, Answer, Tally, Window, quantile


def answer(
    revision: str = "digits-1", code: str = "200", *, correct: bool = True, at: float = 10.0
) -> Answer:
    return Answer(revision, code, correct=correct, sent_time=at, latency_ms=at)


def close(tally: Tally, start: float = 0.0) -> Window:
    return tally.close(start_time=start, monotonic_s=start, length_s=0.1)


def test_answers_are_counted_by_revision_and_code() -> None:
    tally = Tally()
    for given in (
        answer(at=11.0),
        answer(at=10.0, correct=False),
        answer("digits-2", "500", correct=False, at=12.0),
        answer(GATEWAY, "reset", correct=False),
    ):
        tally.send()
        tally.finish(given)

    cells = {(cell.revision, cell.code): cell for cell in close(tally).cells}

    assert set(cells) == {("digits-1", "200"), ("digits-2", "500"), (GATEWAY, "reset")}
    healthy = cells["digits-1", "200"]
    assert (healthy.count, healthy.correct) == (2, 1)
    assert (healthy.first_sent, healthy.last_sent) == (10.0, 11.0)
    assert healthy.latencies_ms == (10.0, 11.0)


def test_a_request_without_an_answer_is_in_flight_until_it_has_one() -> None:
    tally = Tally()
    tally.send()
    open_window = close(tally)
    tally.finish(answer())
    answered = close(tally)

    assert (open_window.sent, open_window.in_flight, open_window.cells) == (1, 1, ())
    assert (answered.sent, answered.in_flight, len(answered.cells)) == (0, 0, 1)


def test_a_request_that_was_not_sent_is_counted_but_never_in_flight() -> None:
    tally = Tally()
    tally.refuse(answer(GATEWAY, "overload", correct=False))

    window = close(tally)

    assert (window.sent, window.in_flight) == (0, 0)
    assert window.cells[0].code == "overload"


def test_a_reader_gets_each_window_once_and_in_order() -> None:
    tally = Tally()
    for start in range(5):
        close(tally, start)

    first = tally.since(0, limit=3)
    rest = tally.since(first[-1].seq + 1, limit=3)

    assert [window.seq for window in first + rest] == [0, 1, 2, 3, 4]
    assert tally.since(5, limit=3) == []


def test_only_the_newest_windows_are_kept_and_the_oldest_number_is_told() -> None:
    tally = Tally(keep=2)
    for start in range(5):
        close(tally, start)

    assert tally.first_seq == 3
    assert [window.seq for window in tally.since(0, limit=10)] == [3, 4]


def test_a_window_survives_its_way_over_the_wire() -> None:
    tally = Tally()
    tally.send()
    tally.finish(answer())
    window = close(tally)

    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ((), 0.5, None),
        ((7.0,), 0.0, 7.0),
        ((7.0,), 1.0, 7.0),
        ((1.0, 2.0, 3.0, 4.0), 0.5, 2.0),
        ((1.0, 2.0, 3.0, 4.0), 0.51, 3.0),
        (tuple(float(n) for n in range(1, 101)), 0.99, 99.0),
    ],
)
def test_a_quantile_is_the_value_that_the_share_does_not_exceed(
    values: tuple[float, ...], share: float, expected: float | None
) -> None:
    assert quantile(values, share) == expected
