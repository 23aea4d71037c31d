"""The picture of a run: traffic weights, answers, errors, latency and accuracy over time."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hack.demo.faults import blows
from hack.demo.history import FULL_PERCENT, History, Outcome, Span
from hack.demo.judge import phases
from hack.demo.loadgen.answers import GATEWAY, quantile

BIN_S = 1.0
COLOURS = ("#4c78a8", "#54a24b", "#e45756", "#b279a2", "#f58518", "#72b7b2", "#9d755d")
FAULT_COLOUR = "#888888"
GATEWAY_COLOUR = "#222222"


@dataclass(slots=True)
class Bin:
    """The answers of one revision to what was sent within one second."""

    count: int = 0
    errors: int = 0
    correct: int = 0
    latencies_ms: list[float] = field(default_factory=list)


def draw(history: History, format_: str) -> bytes:
    """The picture as `png` or `svg`."""
    # Text stays text in the SVG, so that it can be searched and read aloud.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "demo", "font.size": 10}):
        figure = Figure(figsize=(14, 11), layout="constrained")
        panels = figure.subplots(5, 1, sharex=True, height_ratios=(3, 2, 2, 2, 2))
        weights, answers, errors, latency, accuracy = panels
        names = _names(history)
        bins = _bins(history)
        _draw_weights(weights, history, names)
        if weights.get_lines():
            figure.legend(loc="outside upper center", ncols=3, frameon=False)
        _draw_answers(answers, bins, names)
        _draw_errors(errors, bins, names)
        _draw_latency(latency, bins, names)
        _draw_accuracy(accuracy, bins)
        _draw_marks(tuple(panels), history)
        _draw_faults(tuple(panels), history)
        accuracy.set_xlabel("seconds since the first version was applied")
        accuracy.set_xlim(0, max(BIN_S, history.end - history.start))
        output = BytesIO()
        # No SVG metadata: it is a time, and links to vocabularies elsewhere.
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if format_ == "svg" else None
        figure.savefig(output, format=format_, dpi=130, metadata=nothing)
    return output.getvalue()


def _names(history: History) -> dict[str, str]:
    """What the legend calls each revision, in the order of the versions."""
    versions = {applied.digest: applied for applied in history.applied}
    labels: dict[str, str] = {}
    for seen in history.revisions:
        applied = versions.get(seen.digest)
        text = f"version {applied.version}: {applied.title}" if applied else seen.name
        labels.setdefault(seen.name, text)
    return labels


def _colour(name: str, names: Mapping[str, str]) -> str:
    if name not in names:
        return GATEWAY_COLOUR
    return COLOURS[list(names).index(name) % len(COLOURS)]


def _bins(history: History) -> dict[str, dict[float, Bin]]:
    """Answers by revision and by the second in which their window began."""
    bins: dict[str, dict[float, Bin]] = defaultdict(lambda: defaultdict(Bin))
    for window in history.windows:
        second = (window.start_time - history.start) // BIN_S * BIN_S
        for cell in window.cells:
            target = bins[cell.revision][second]
            target.count += cell.count
            target.correct += cell.correct
            target.errors += 0 if cell.ok else cell.count
            target.latencies_ms += cell.latencies_ms
    return bins


def _draw_weights(axes: Axes, history: History, names: Mapping[str, str]) -> None:
    for name, label in names.items():
        spans = _on_the_route(history.spans(name))
        if not spans:
            continue
        times = [span.start - history.start for span in spans] + [spans[-1].end - history.start]
        percents = [span.percent for span in spans] + [spans[-1].percent]
        colour = _colour(name, names)
        axes.step(times, percents, where="post", label=label, color=colour, linewidth=2.5)
        for before, span in pairwise(spans):
            if span.percent not in {0, FULL_PERCENT} and span.percent > before.percent:
                axes.annotate(
                    f"{span.percent} %",
                    (span.start - history.start, span.percent),
                    xytext=(4, 5),
                    textcoords="offset points",
                    color=colour,
                    fontsize=9,
                )
    axes.set_ylabel("traffic weight, %")
    axes.set_ylim(-4, 112)
    axes.grid(alpha=0.25)


def _on_the_route(spans: list[Span]) -> list[Span]:
    """`spans` without the long zeros before and after, but with the drops to and from zero."""
    weighted = [index for index, span in enumerate(spans) if span.percent > 0]
    if not weighted:
        return []
    first, last = weighted[0], weighted[-1]
    begin, end = spans[first].start, spans[last].end
    shown = [Span(begin, begin, 0), *spans[first : last + 1]]
    return shown if last == len(spans) - 1 else [*shown, Span(end, end, 0)]


def _draw_answers(
    axes: Axes, bins: Mapping[str, Mapping[float, Bin]], names: Mapping[str, str]
) -> None:
    base: dict[float, float] = defaultdict(float)
    for name in [*names, *(other for other in bins if other not in names)]:
        seconds = sorted(bins.get(name, {}))
        heights = [bins[name][second].count / BIN_S for second in seconds]
        bottoms = [base[second] for second in seconds]
        axes.bar(
            seconds, heights, BIN_S, bottom=bottoms, align="edge", color=_colour(name, names),
            linewidth=0, antialiased=False,
        )  # fmt: skip
        for second, height in zip(seconds, heights, strict=True):
            base[second] += height
    axes.set_ylabel("answers/s")
    axes.grid(alpha=0.25)


def _draw_errors(
    axes: Axes, bins: Mapping[str, Mapping[float, Bin]], names: Mapping[str, str]
) -> None:
    base: dict[float, float] = defaultdict(float)
    for name in [*names, *(other for other in bins if other not in names)]:
        failing = {second: b.errors for second, b in sorted(bins.get(name, {}).items()) if b.errors}
        # revisions have their names above the picture
        label = None if name in names else "no revision answered" if name == GATEWAY else name
        axes.bar(
            list(failing), [count / BIN_S for count in failing.values()], BIN_S,
            bottom=[base[second] for second in failing], align="edge",
            color=_colour(name, names), linewidth=0, label=label if failing else None,
        )  # fmt: skip
        for second, count in failing.items():
            base[second] += count / BIN_S
    axes.set_ylabel("errors/s")
    axes.set_ylim(0, max([1.0, *base.values()]) * 1.15)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", framealpha=0.9)
    if not base:
        axes.text(0.5, 0.5, "no request failed", transform=axes.transAxes, ha="center", va="center")


def _draw_latency(
    axes: Axes, bins: Mapping[str, Mapping[float, Bin]], names: Mapping[str, str]
) -> None:
    """The 99th percentile of each second, of answers that a revision gave."""
    for name in names:
        seconds = sorted(bins.get(name, {}))
        highest = [quantile(sorted(bins[name][s].latencies_ms), 0.99) for s in seconds]
        points = [(s + BIN_S / 2, ms) for s, ms in zip(seconds, highest, strict=True) if ms]
        axes.plot(
            [at for at, _ in points], [ms for _, ms in points], color=_colour(name, names),
            linestyle="none", marker=".", markersize=3,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel("p99, ms")
    axes.grid(alpha=0.25)


def _draw_accuracy(axes: Axes, bins: Mapping[str, Mapping[float, Bin]]) -> None:
    """Accuracy of all answers, wrong for those that failed: what the users got."""
    totals: dict[float, Bin] = defaultdict(Bin)
    for seconds in bins.values():
        for second, one in seconds.items():
            totals[second].count += one.count
            totals[second].correct += one.correct
    times = sorted(totals)
    shares = [100 * totals[t].correct / totals[t].count for t in times]
    axes.plot([t + BIN_S / 2 for t in times], shares, color=GATEWAY_COLOUR, linewidth=1.5)
    axes.set_ylabel("right answers, %\n(all requests)")
    axes.set_ylim(min([80.0, *shares]) - 2, 101)
    axes.grid(alpha=0.25)


def _draw_faults(panels: tuple[Axes, ...], history: History) -> None:
    """A shade for as long as something was broken."""
    for number, blow in enumerate(blows(history)):
        begin = blow.began - history.start
        end = (history.end if blow.mended is None else blow.mended) - history.start
        for axes in panels:
            axes.axvspan(begin, end, color=FAULT_COLOUR, alpha=0.15, linewidth=0)
        panels[1].annotate(
            str(blow.kind), (begin, 1), xycoords=("data", "axes fraction"),
            xytext=(3, -11 - 11 * number), textcoords="offset points", fontsize=8.5,
        )  # fmt: skip


def _draw_marks(panels: tuple[Axes, ...], history: History) -> None:
    """Dashed lines where a version was applied, and where it was promoted or rolled back."""
    marks: list[tuple[float, str]] = []
    for phase in phases(history):
        marks.append((phase.applied.at, f"v{phase.applied.version} applied"))
        if phase.revision is None:
            continue
        for before, span in pairwise(history.spans(phase.revision)):
            in_phase = phase.applied.at <= span.start <= phase.until
            if in_phase and phase.outcome is Outcome.PROMOTED and span.percent == FULL_PERCENT:
                marks.append((span.start, "promoted"))
            if in_phase and phase.outcome is Outcome.ROLLED_BACK and span.percent < before.percent:
                marks.append((span.start, "rolled back"))
    for at, text in marks:
        second = at - history.start
        for axes in panels:
            axes.axvline(second, color="#888888", linewidth=0.9, linestyle="--")
        panels[0].text(second, 111, f" {text}", fontsize=8.5, va="top", ha="left", color="#444444")
