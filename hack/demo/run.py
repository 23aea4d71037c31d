"""The demo itself: what is applied, in which order, and what is awaited in between."""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from hack.demo import manifests, storm
from hack.demo.cache import cache_dir
from hack.demo.cluster import LoadGenerator, connect, environment, install_operator, kubectl
from hack.demo.follow import dwell, follow
from hack.demo.history import Applied, History, Journal, Outcome, read_history
from hack.demo.judge import LATENCY, judge, outcome
from hack.demo.recorder import Recorder
from hack.demo.report import write_report
from hack.demo.screen import Screen
from hack.demo.storm import Storm
from hack.demo.train import Models, TrainedModel, trained_models

READY_TIMEOUT_S = 90.0
"""Until a version has its first weight: its image may have to be pulled first."""

READY_S = 10.0
"""A version's pods are ready after about this time."""

BAD_FOUND_S = 30.0
BAKE_S = 10.0
SLOW_S = 60.0
"""A latency that breaks its limit is judged over a hundred answers, of which a slow version gives
two in a second."""

SUBTLE_TIMEOUT_S = 900.0
SUBTLE_S = 140.0
"""A few errors more than allowed are told from bad luck only by many requests: 3 % instead of 1 %
by some thousand, which is 140 s at 100 requests/s and steps of 25 s (median of 300 simulated
rollouts; all were rolled back, 95 % of them within 190 s)."""

STEP_GRACE_S = 20.0
"""Beyond a step's own time: for pods to start, metrics to arrive and the route to be confirmed."""

DWELL_S = 5.0
"""Between two versions, so that the picture shows where one ends and the next begins."""

PROOF_S = 10.0
"""After the last rollback, to see that no request reaches the candidate any more."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One version and what should become of it.

    Attributes:
        version: Its number.
        chapter: What it is about, for `--only`; empty for the first, without which there is none.
        expected: What should become of it.
        because: What the reason of its rollback has to name.
        weighted: Whether it should get users' requests at all.
        found_s: How long it takes as a rule until a bad one is found out, seconds.
        evidence_s: How much longer than a step that may take: it needs many requests.
        stormy: Whether the cluster is hurt meanwhile.
    """

    version: int
    chapter: str
    expected: Outcome
    because: str = ""
    weighted: bool = True
    found_s: float = BAD_FOUND_S
    evidence_s: float = 0.0
    stormy: bool = False

    def timeout_s(self, weights: tuple[int, ...], step_s: float) -> float:
        """How long it may take from its first weight on; a bad one has to be found out at that."""
        if not self.chapter:
            return READY_TIMEOUT_S
        if self.expected is Outcome.ROLLED_BACK:
            return step_s + STEP_GRACE_S + self.evidence_s
        extra_s = storm.BACK_TIMEOUT_S if self.stormy else 0.0
        return len(weights) * (step_s + STEP_GRACE_S) + BAKE_S + STEP_GRACE_S + extra_s

    def about_s(self, weights: tuple[int, ...], step_s: float) -> float:
        """How long it takes as a rule."""
        if not self.chapter or not self.weighted:
            return READY_S
        if self.expected is Outcome.ROLLED_BACK:
            return READY_S + self.found_s
        extra_s = storm.DURATION_S if self.stormy else 0.0
        return READY_S + len(weights) * (step_s + 2) + BAKE_S + extra_s


GOALS = {Outcome.PROMOTED: "promoted", Outcome.ROLLED_BACK: "rolled back"}

STAGES = (
    Stage(1, "", Outcome.PROMOTED),
    Stage(2, "good", Outcome.PROMOTED),
    Stage(3, "bad", Outcome.ROLLED_BACK, because="errors"),
    Stage(4, "slow", Outcome.ROLLED_BACK, because=LATENCY, evidence_s=SLOW_S),
    Stage(5, "broken", Outcome.ROLLED_BACK, because="DigestMismatch", weighted=False),
    Stage(
        6,
        "subtle",
        Outcome.ROLLED_BACK,
        because="errors",
        found_s=SUBTLE_S,
        evidence_s=SUBTLE_TIMEOUT_S,
    ),
    Stage(7, "storm", Outcome.PROMOTED, stormy=True),
)
CHAPTERS = tuple(stage.chapter for stage in STAGES if stage.chapter)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Attributes:
        namespace: Where the demo runs; it is removed first.
        hostname: Host name of the route.
        rate: Requests per second.
        step_s: How long each weight is held, seconds.
        output: Folder for the report and the history.
        keep_load: Go on sending at the end, for whoever looks around.
        install: Install the operator first.
        disable_rollback: Set the operator's test switch: the demo must fail then.
        chapters: What is shown, of `CHAPTERS`.
    """

    namespace: str
    hostname: str
    rate: float
    step_s: int
    output: Path
    keep_load: bool
    install: bool
    disable_rollback: bool
    chapters: tuple[str, ...] = CHAPTERS

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The versions that are applied: the first one and those of the chapters."""
        return tuple(stage for stage in STAGES if stage.chapter in {"", *self.chapters})

    @property
    def place(self) -> manifests.Place:
        """Where the demo runs, as the manifests need it."""
        return manifests.Place(self.namespace, self.hostname, self.step_s)


def run(options: Options, console: Console) -> bool:
    """Runs the demo and writes its report; True if everything was as expected.

    Raises:
        ClusterError: The cluster is not as the demo needs it.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.output / "history.jsonl")
    journal.clear()
    with Screen(console) as screen:
        screen.say("training the models, unless they are in the cache")
        models = trained_models()
        shown = {stage.version for stage in options.stages}
        for model in models.versions:
            if model.version in shown:
                screen.say(_introduction(model))
        screen.say(f"it takes about {_about_min(options, models):.0f} min from here")
        _prepare(options, models, screen)
        api = connect()
        with Recorder(
            api,
            namespace=options.namespace,
            name=manifests.MODEL_DEPLOYMENT,
            journal=journal,
            load=LoadGenerator(api, options.namespace),
        ) as recorder:
            _roll_out_all(options, models, recorder, screen)
        history = recorder.history()
    if options.keep_load:
        LoadGenerator(api, options.namespace).start(options.rate)
    good = report(history, options.output, console)
    look_around(options, console)
    return good


def look_around(options: Options, console: Console) -> None:
    """Prints how to look at what the demo left in the cluster, and how to remove it."""
    namespace = options.namespace
    infer = f"http://127.0.0.1:8080/v2/models/{manifests.MODEL_DEPLOYMENT}"
    for text in (
        "look around, in a shell with",
        *(f"  export {name}={value}" for name, value in environment().items()),
        f"  kubectl -n {namespace} get mdep,mrev,httproute,pods",
        f"  kubectl -n {namespace} describe mdep {manifests.MODEL_DEPLOYMENT}",
        "  kubectl -n gateway port-forward service/gateway 8080:80 &",
        f"  curl -H 'Host: {options.hostname}' {infer}",
        "  kubectl -n monitoring port-forward service/prometheus 9090 &",
        f"remove the demo:    kubectl delete namespace {namespace}",
        "remove the cluster: make cluster-down",
        f"and what was built:  rm -r {cache_dir()}",
    ):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def report(history: History, output: Path, console: Console) -> bool:
    """Judges a history, writes the report into `output` and prints it; True if all is well."""
    judgement = judge(history)
    write_report(history, judgement, output, console)
    return judgement.ok


def report_again(output: Path, console: Console) -> bool:
    """Judges and reports the history that an earlier run left in `output`."""
    return report(read_history(output / "history.jsonl"), output, console)


def _prepare(options: Options, models: Models, screen: Screen) -> None:
    """A fresh namespace with the file server and the load generator, and the operator."""
    connect()
    if options.install:
        screen.say("installing the operator")
        install_operator(disable_rollback=options.disable_rollback)
    screen.say(f"preparing the namespace {options.namespace}")
    kubectl("delete", "namespace", options.namespace, "--ignore-not-found", "--timeout=120s")
    folder = options.output / "manifests"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _apply(manifests.namespace(options.place), folder / "namespace.yaml")
    infrastructure = manifests.infrastructure(options.place, models)
    # NB: server-side, since a client-side apply keeps a second copy of each model in an annotation.
    _apply(infrastructure, folder / "infrastructure.yaml", "--server-side", "--force-conflicts")
    for deployment in ("models", "loadgen"):
        kubectl("-n", options.namespace, "rollout", "status", f"deployment/{deployment}",
                "--timeout=120s")  # fmt: skip


def _roll_out_all(options: Options, models: Models, recorder: Recorder, screen: Screen) -> None:
    """Applies one version after the other, under load from the first on, until one goes wrong."""
    by_version = {model.version: model for model in models.versions}
    for stage in options.stages:
        first = not stage.chapter
        applied = _apply_version(options, by_version[stage.version], stage, recorder)
        screen.say(f"applied version {stage.version}: {applied.title}")
        settled = _see_out(options, stage, applied, recorder, screen)
        if first and settled:
            recorder.start_load(options.rate)
            screen.say(f"sending {options.rate:g} requests/s through the gateway from now on")
        history = recorder.history()
        result = outcome(history, applied, time.time())
        screen.say(f"version {stage.version}: {result}{_why(history, applied)}")
        if result is not stage.expected:
            break
        last = stage is options.stages[-1]
        dwell_s = PROOF_S if last else DWELL_S
        screen.awaiting("the end" if last else "the next version", dwell_s)
        dwell(recorder, screen, dwell_s)
    if recorder.history().loads:
        recorder.stop_load()


def _see_out(
    options: Options, stage: Stage, applied: Applied, recorder: Recorder, screen: Screen
) -> bool:
    """Waits until a version is what it should be, or something else for good; False if never."""
    screen.awaiting(f"version {stage.version} to have its first weight", READY_TIMEOUT_S)
    if not follow(recorder, screen, partial(has_begun, applied=applied), READY_TIMEOUT_S):
        return False
    timeout_s = stage.timeout_s(applied.steps, options.step_s)
    if stage.stormy:
        Storm(recorder, screen, options.namespace, timeout_s).strike(applied)
    screen.awaiting(f"version {stage.version} to be {GOALS[stage.expected]}", timeout_s)
    return follow(recorder, screen, partial(is_settled, applied=applied), timeout_s)


def _apply_version(
    options: Options, model: TrainedModel, stage: Stage, recorder: Recorder
) -> Applied:
    manifest = manifests.model_deployment(options.place, model)
    path = options.output / "manifests" / f"{manifests.MODEL_DEPLOYMENT}-{model.version}.yaml"
    applied = Applied(
        at=time.time(),
        version=model.version,
        title=model.title,
        digest=model.digest,
        expected=stage.expected,
        steps=manifests.weights(manifest) if stage.chapter and stage.weighted else (),
        because=stage.because,
        stormy=stage.stormy,
        hold_s=manifests.hold_s(manifest),
    )
    recorder.applied(applied)
    _apply([manifest], path)
    return applied


def _apply(objects: list[manifests.Manifest], path: Path, *flags: str) -> None:
    path.write_text(manifests.to_yaml(objects))
    kubectl("apply", *flags, "-f", str(path))


def has_begun(history: History, applied: Applied) -> bool:
    """Whether `applied` has requests, or nothing more is to come of it."""
    revision = history.revision_of(applied.digest)
    weighted = revision is not None and history.weights.get(revision, 0) > 0
    return weighted or is_settled(history, applied)


def is_settled(history: History, applied: Applied) -> bool:
    """Whether nothing more is to come of `applied`: its outcome is there, confirmed and baked."""
    if outcome(history, applied, history.end) is Outcome.UNFINISHED:
        return False
    status = history.status
    confirmed = all(share.confirmed_percent == share.desired_percent for share in status.traffic)
    return confirmed and status.candidate is None and status.former is None


def _introduction(model: TrainedModel) -> str:
    text = f"  version {model.version}: {model.title}, accuracy {model.accuracy:.1%}"
    if model.flaw:
        text += f"; {model.flaw}"
    if model.failing_share:
        text += f": {model.failing_share:.0%} of the test images fail"
    return text


def _about_min(options: Options, models: Models) -> float:
    weights = manifests.weights(manifests.model_deployment(options.place, models.versions[0]))
    stages = options.stages
    seconds = sum(stage.about_s(weights, options.step_s) + DWELL_S for stage in stages)
    return max(1.0, (seconds + PROOF_S) / 60)


def _why(history: History, applied: Applied) -> str:
    revision = history.revision_of(applied.digest)
    for entry in history.status.rolled_back:
        if entry.revision == revision:
            return f" ({entry.reason}: {entry.message})"
    return ""
