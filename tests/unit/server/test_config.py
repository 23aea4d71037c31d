import pytest

from model_server.config import parse_duration_s, parse_serve, parse_size
from model_server.failures import Reason, StartupError
from model_server.rest import RestSettings

DIGEST = "sha256:" + "0" * 64
NEEDED = ["--model=file:///m", f"--digest={DIGEST}", "--name=m", "--revision=m-1"]


def test_what_is_not_said_has_a_default() -> None:
    config = parse_serve(NEEDED, {})

    assert (config.name, config.revision) == ("m", "m-1")
    assert (config.http_port, config.metrics_port) == (8080, 9090)
    assert config.rest == RestSettings()


@pytest.mark.parametrize(
    ("flags", "threads", "concurrency"),
    [([], 1, 4), (["--threads=2"], 2, 2), (["--concurrency=1"], 4, 1)],
    ids=str,
)
def test_what_runs_at_once_never_exceeds_the_cpu_limit(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], threads: int, concurrency: int
) -> None:
    monkeypatch.setattr("model_server.config.available_cpus", lambda: 4.5)

    config = parse_serve([*NEEDED, *flags], {})

    assert (config.session.threads, config.concurrency) == (threads, concurrency)


def test_the_model_its_digest_and_its_name_are_all_that_one_has_to_say() -> None:
    digest = "sha256:0123456789abcdef" + "0" * 48
    command = (
        f"serve --model file:///models/m.onnx --digest {digest} --name digits "
        "--http-port 8000 --metrics-port 9000"
    )

    config = parse_serve(command.split()[1:], {"MODEL_SERVER_REVISION": ""})

    assert (config.name, config.revision) == ("digits", "digits-0123456789")
    assert (config.http_port, config.metrics_port) == (8000, 9000)


def test_the_environment_stands_in_for_flags_and_flags_win() -> None:
    env = {
        "MODEL_SERVER_MODEL": "file:///m",
        "MODEL_SERVER_DIGEST": DIGEST,
        "MODEL_SERVER_NAME": "from-env",
        "MODEL_SERVER_REVISION": "m-1",
        "MODEL_SERVER_DRAIN_DELAY": "1500ms",
    }

    config = parse_serve(["--name", "from-flag"], env)

    assert config.name == "from-flag"
    assert config.drain.delay_s == 1.5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (NEEDED[1:], "--model or MODEL_SERVER_MODEL is needed"),
        ([*NEEDED, "--digest=sha256:abc"], "64 hex digits"),
        ([*NEEDED, "--http-port=99999"], "not a port"),
        ([*NEEDED, "--threads=0"], "1 or more"),
        ([*NEEDED, "--max-queue=-1"], "0 or more"),
        ([*NEEDED, "--drain-delay=soon"], "not a duration"),
        ([*NEEDED, "--max-model-bytes=big"], "not a size"),
        ([*NEEDED, "--log-level=loud"], "log level"),
        ([*NEEDED, "--nonsense"], "nonsense"),
        ([*NEEDED, "--mod=x"], "--mod"),
    ],
)
def test_what_is_wrong_is_named(args: list[str], message: str) -> None:
    with pytest.raises(StartupError, match=message) as failure:
        parse_serve(args, {})

    assert failure.value.reason is Reason.INVALID_CONFIG
    assert failure.value.exit_code == 2


def test_a_malformed_variable_is_refused_like_a_flag() -> None:
    with pytest.raises(StartupError, match="not a duration"):
        parse_serve(NEEDED, {"MODEL_SERVER_REQUEST_TIMEOUT": "x"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5.0), ("500ms", 0.5), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("7", 7), ("2Ki", 2048), ("64Mi", 64 << 20)])
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == size
