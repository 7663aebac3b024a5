"""Pictures of the comparison of screening models, drawn from what the benchmark has left; and where a model
looked.

    stethopi plot classify --out plots      curves.png, roc.png, confusion.png, reliability.png
    stethopi plot saliency --model melcnn-attention --recording 68379_MV --out saliency.png
    stethopi plot positions --recording 68379 --out positions.png     a CirCor patient's four positions

ROC curves and training curves come from the scores and checkpoints that `stethopi benchmark classify` keeps
in the cache, confusion and reliability from docs/results/classify.json, so that a picture never says
anything else than the table beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from device.durable import whole_file
from device.errors import BadInput
from training.core.say import Say

__all__ = [
    "draw_confusion",
    "draw_curves",
    "draw_comparison",
    "draw_saliency",
    "draw_positions",
    "saliency",
    "positions",
    "draw_reliability",
    "roc",
    "roc_points",
    "saliency_of",
]

_INK, _CLEAN, _ALERT = "#40536b", "#0b7a75", "#c4472f"
_COLOURS = ("#c4472f", "#40536b", "#0b7a75", "#d08a1d", "#5157a0", "#8a8d91")
_SOURCES = ("a", "b", "e", "f", "circor")
_LABELS = {"circor": "CirCor"}


def _save(figure: Figure, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise BadInput(f"{path}: pictures are written as PNG; give a name that ends in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _grid(count: int, size: float = 2.9, **options: Any) -> tuple[Figure, list[Any]]:
    columns = min(count, 5)
    rows = -(-count // columns)
    figure = Figure(figsize=(size * columns, size * rows + 0.9), layout="constrained", dpi=90)
    axes = figure.subplots(rows, columns, squeeze=False, **options).reshape(-1)
    for one in axes[count:]:
        one.set_visible(False)
    return figure, list(axes[:count])


def draw_curves(path: Path, runs: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """Loss by step of each run; dashed the loss on recordings that were watched, where there were any."""
    figure = Figure(figsize=(8, 4.2), layout="constrained", dpi=90)
    axes = figure.subplots()
    for k, (name, curve) in enumerate(runs.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        axes.plot([p["step"] for p in curve], [p["loss"] for p in curve], color=colour, label=name)
        watched = [p for p in curve if "watched_loss" in p]
        if watched:
            axes.plot([p["step"] for p in watched], [p["watched_loss"] for p in watched], "--", color=colour)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (dashed: on the fold that decides)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def roc_points(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1 - specificity, sensitivity) of every threshold, from nobody called to all; ties in one step."""
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.concatenate([np.diff(score[order]) != 0, [True]]))
    called = np.cumsum(positive[order])[ends]
    wrong = np.cumsum(~positive[order])[ends]
    return (
        np.concatenate([[0.0], wrong / max(1, (~positive).sum())]),
        np.concatenate([[0.0], called / max(1, positive.sum())]),
    )


def roc(path: Path, sources: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], title: str) -> None:
    """A panel a source, a curve a model: source → model → (score, positive)."""
    from training.metrics.classification import auc

    figure, panels = _grid(len(sources), sharex=True, sharey=True)
    names = list(dict.fromkeys(name for models in sources.values() for name in models))
    for axes, (source, models) in zip(panels, sources.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
        for name, (score, positive) in models.items():
            x, y = roc_points(score, positive)
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            label = f"{name} {auc(score, positive):.2f}"
            axes.plot(x, y, color=colour, linewidth=1.2, label=label)
        axes.set_title(_LABELS.get(source, source), fontsize=9)
        axes.set_aspect("equal")
        axes.legend(fontsize=6, loc="lower right", title="AUC", title_fontsize=6)
        axes.grid(alpha=0.2)
        axes.set_xlabel("1 - specificity", fontsize=8)
    panels[0].set_ylabel("sensitivity", fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def draw_confusion(path: Path, models: Mapping[str, Mapping[str, Mapping[str, int]]], title: str) -> None:
    """A row a model, a panel a source: model → source → counts as training.metrics.classification.confusion
    gives them.
    """
    sources = list(dict.fromkeys(source for entry in models.values() for source in entry))
    figure = Figure(figsize=(1.9 * len(sources), 1.9 * len(models) + 0.5), layout="constrained", dpi=90)
    grid = figure.subplots(len(models), len(sources), squeeze=False)
    for row, (name, entry) in zip(grid, models.items(), strict=True):
        for axes, source in zip(row, sources, strict=True):
            if source not in entry:
                axes.set_visible(False)
                continue
            n = entry[source]
            table = np.array(
                [
                    [n["true_negative"], n["false_positive"]],
                    [n["false_negative"], n["true_positive"]],
                ]
            )
            share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
            axes.imshow(share, cmap="Blues", vmin=0, vmax=1.3)
            for i in range(2):
                for j in range(2):
                    text = f"{table[i, j]}\n{100 * share[i, j]:.0f} %"
                    axes.text(j, i, text, ha="center", va="center", fontsize=7)
            axes.set_xticks([0, 1], ["normal", "abnormal"], fontsize=6)
            axes.set_yticks([0, 1], ["normal", "abnormal"], fontsize=6, rotation=90, va="center")
            axes.set_title(f"{name}, {_LABELS.get(source, source)}", fontsize=7)
    figure.supxlabel("called", fontsize=8)
    figure.supylabel("label", fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def draw_reliability(
    path: Path, sources: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], title: str
) -> None:
    """A panel a source, a line a model: source → model → bins as training.metrics.classification.reliability
    gives them.
    """
    figure, panels = _grid(len(sources), sharex=True, sharey=True)
    names = list(dict.fromkeys(name for models in sources.values() for name in models))
    for axes, (source, models) in zip(panels, sources.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
        for name, bins in models.items():
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            told, found = [b["told"] for b in bins], [b["found"] for b in bins]
            axes.plot(told, found, "o-", color=colour, linewidth=1.0, markersize=3, label=name)
        axes.set_title(_LABELS.get(source, source), fontsize=9)
        axes.set_aspect("equal")
        axes.grid(alpha=0.2)
        axes.legend(fontsize=6, loc="upper left")
        axes.set_xlabel("told probability", fontsize=8)
    panels[0].set_ylabel("found share abnormal", fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def saliency_of(net: Any, x: np.ndarray) -> tuple[np.ndarray, str]:
    """How much each place of a window counted, float64 of the shape of `x`, 0 to 1, and by which means.

    x: float32 (height, width). A network with attention says so itself; of any other it is what the last map
    adds to the logit of abnormal, by its gradient (Grad-CAM, Selvaraju et al. 2017).
    """
    import torch

    given = torch.from_numpy(np.ascontiguousarray(x, np.float32))[None, None]
    net = net.eval()
    if hasattr(net, "attention"):
        with torch.no_grad():
            found, how = net.attention(given)[0], "attention"
    else:
        kept: list[torch.Tensor] = []
        hook = _last_map(net).register_forward_hook(lambda _m, _args, out: kept.append(out))
        try:
            with torch.enable_grad():
                logit = net(given.requires_grad_(True))[0, 1]
                (slope,) = torch.autograd.grad(logit, kept[0])
        finally:
            hook.remove()
        weight = slope.mean((2, 3), keepdim=True)
        found, how = torch.relu((weight * kept[0]).sum(1))[0].detach(), "gradient of abnormal"
    wide = torch.nn.functional.interpolate(
        found[None, None], size=x.shape, mode="bilinear", align_corners=False
    )[0, 0]
    values = wide.numpy().astype(np.float64)
    return values / max(float(values.max()), 1e-12), how


def _last_map(net: Any) -> Any:
    """The module that gives a network's last map before the mean."""
    for name in ("body", "blocks", "layer4"):
        if hasattr(net, name):
            return getattr(net, name)[-1]
    raise ValueError(f"{type(net).__name__}: not known where its last map is")


def saliency(
    path: Path,
    x: np.ndarray,
    map_: np.ndarray,
    t: np.ndarray,
    hz: tuple[float, float] | None,
    title: str,
    states: Sequence[tuple[float, float, str]] = (),
) -> None:
    """What a network heard of one window, and below the same with where it looked. Writes the PNG.

    x, map_: (height, width); a waveform has height 1. t: seconds of the columns in the recording. hz: lower
    edge of the lowest and upper one of the highest band. states: spans of the recording in seconds; S1 and
    S2 are marked above.
    """
    figure = Figure(figsize=(9, 6.2), layout="constrained", dpi=80)
    axes = figure.subplots(2, 1, sharex=True)
    if x.shape[0] == 1:
        for one in axes:
            one.plot(t, x[0], color=_INK, linewidth=0.5)
        axes[1].fill_between(t, x.min(), x.min() + map_[0] * np.ptp(x), color=_ALERT, alpha=0.35, linewidth=0)
        axes[1].set_ylabel("sound; filled: where it looked")
        axes[0].set_ylabel("sound")
    else:
        assert hz is not None
        band = np.arange(x.shape[0])
        for one in axes:
            one.pcolormesh(t, band, x, cmap="gray_r", shading="nearest", rasterized=True)
            ticks = np.linspace(0, x.shape[0] - 1, 5)
            names = [f"{_hertz(hz, k / (x.shape[0] - 1)):.0f}" for k in ticks]
            one.set_yticks(ticks, names)
            one.set_ylabel("Hz")
        shown = axes[1].pcolormesh(
            t, band, map_, cmap="inferno", alpha=0.55, shading="nearest", vmin=0, vmax=1, rasterized=True
        )
        figure.colorbar(shown, ax=axes[1], label="where it looked", pad=0.01)
    for start, end, state in states:
        if state in ("S1", "S2") and t[0] <= start and end <= t[-1]:
            axes[0].axvspan(start, end, ymin=0.97, color=_ALERT if state == "S1" else _CLEAN)
            where = ((start + end) / 2, 1.01)
            axes[0].annotate(state, where, xycoords=("data", "axes fraction"), fontsize=7, ha="center")
    axes[1].set_xlabel("seconds")
    axes[1].set_xlim(t[0], t[-1])
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _hertz(hz: tuple[float, float], share: float) -> float:
    """Frequency at a share of the way from the lowest to the highest band, which lie evenly in mel."""
    low, high = (np.log10(1.0 + h / 700.0) for h in hz)
    return float(700.0 * (10.0 ** (low + share * (high - low)) - 1.0))


def draw_comparison(
    data: Path,
    cache: Path,
    results: Path,
    out: Path,
    models: Sequence[str] = (),
    say: Say = lambda text: None,
) -> list[Path]:
    """All pictures that the benchmark's leavings allow; gives the files. BadInput when there are none.

    Fold 0 learned without it, int8 where there is int8; sources with fewer than five of a class left out.
    """
    from training.data.recordings import recordings
    from training.screening.candidates import names
    from training.screening.protocols import Unit
    from training.screening.scores import read_unit

    unknown = [m for m in models if m not in names()]
    if unknown:
        raise BadInput(f"--model {unknown[0]}: no such model; there are {', '.join(names())}")
    wanted = list(models) or names()
    everything = recordings(data)
    by_record = {r.record: r for r in everything}
    sources: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    runs: dict[str, list[dict[str, float]]] = {}
    written: list[Path] = []
    for model in wanted:
        unit = Unit(model, "folds", "0")
        scored = read_unit(cache, unit)
        curve = Path(cache) / "screening" / model / unit.protocol / unit.part / "curve.json"
        if curve.is_file():
            runs[model] = json.loads(curve.read_text("utf-8"))
        if scored is None:
            say(f"{unit.name}: not there; stethopi benchmark classify --train {unit.name} makes it")
            continue
        judged = [by_record[r] for r in scored.records["test"]]
        score = np.nan_to_num(scored.logits[f"test/{scored.row}"][:, 1], nan=-20.0)
        for source in _SOURCES:
            rows = np.array([r.database == source for r in judged], bool)
            positive = np.array([r.label == "abnormal" for r in judged], bool)[rows]
            if min(positive.sum(), (~positive).sum()) >= 5:
                sources.setdefault(source, {})[model] = (score[rows], positive)
    if runs:
        draw_curves(out / "curves.png", runs, "training curves, folds 2 to 4")
        written.append(out / "curves.png")
    if sources:
        roc(out / "roc.png", sources, "ROC on fold 0, learned from folds 2 to 4")
        written.append(out / "roc.png")
    written += _from_results(results / "classify.json", out, wanted)
    if not written:
        raise BadInput(
            f"{cache}: no scores of a benchmark there; run `stethopi benchmark classify --train ours` first"
        )
    return written


def _from_results(path: Path, out: Path, models: Sequence[str]) -> list[Path]:
    """Confusion and reliability from the benchmark's own result file; nothing where it compares no models."""
    if not path.is_file():
        return []
    table = json.loads(path.read_text("utf-8")).get("models", {})
    counts: dict[str, dict[str, Any]] = {}
    bins: dict[str, dict[str, Any]] = {}
    folds = 0
    for model in models:
        entry = table.get(model, {}).get("folds")
        if not entry:
            continue
        row = entry["rows"].get("int8") or entry["rows"]["float"]
        folds = max(folds, len(entry["units"]))
        for source in _SOURCES:
            found = row["databases"].get(source)
            if found:
                counts.setdefault(model, {})[source] = found["confusion"]
                bins.setdefault(source, {})[model] = found["reliability"]
    if not counts:
        return []
    what = "fold 0" if folds == 1 else f"up to {folds} folds"
    draw_confusion(
        out / "confusion.png", counts, f"called at each model's own threshold, subject-wise, {what}"
    )
    draw_reliability(out / "reliability.png", bins, f"told and found probability, subject-wise, {what}")
    return [out / "confusion.png", out / "reliability.png"]


def _hearing(
    model: str, checkpoint: Path
) -> tuple[Any, Callable[[np.ndarray], np.ndarray], float, np.ndarray, tuple[float, float] | None]:
    """Of a model: its net; sound → windows (n, height, width); seconds from window to window; seconds of a
    window's columns; its lowest and highest band.
    """
    from device.rates import WORKING_RATE_HZ

    if model == "ours":
        from device.screening import features
        from training.screening.evaluate import window_inputs
        from training.screening.train import load_checkpoint

        net, _ = load_checkpoint(checkpoint)

        def hear(sound: np.ndarray) -> np.ndarray:
            power = features.screening_frames_of(features.at_least_a_window(sound))
            return window_inputs(power, net.view)[:, 0]

        centres = (features.FRAME / 2 + features.FRAME_HOP * np.arange(features.FRAMES)) / WORKING_RATE_HZ
        every = features.FRAMES_EVERY * features.FRAME_HOP / WORKING_RATE_HZ
        highest = _hertz((features.LOWEST_HZ, features.HIGHEST_HZ), net.view.bands / features.BANDS)
        return net, hear, every, centres, (features.LOWEST_HZ, highest)
    from device.screening.baseline_features import BAND_HZ, FRONT_ENDS, Mel
    from training.screening.baseline_recipe import front_end_name
    from training.screening.baselines import load_screening_baseline_net

    front = FRONT_ENDS[front_end_name(model)]
    width = front.shape[1]
    every = front.every / WORKING_RATE_HZ
    if isinstance(front, Mel):
        centres = (front.grid.frame / 2 + front.grid.hop * np.arange(width)) / WORKING_RATE_HZ
        return load_screening_baseline_net(checkpoint), front.windows, every, centres, BAND_HZ
    centres = np.arange(width) * front.length / width / WORKING_RATE_HZ
    return load_screening_baseline_net(checkpoint), front.windows, every, centres, None


def draw_saliency(
    data: Path,
    cache: Path,
    checkpoint: Path,
    model: str,
    recording: str,
    out: Path,
    say: Say = lambda text: None,
) -> Path:
    """Where a trained model looked in the window of a recording that it takes for the most abnormal.

    recording: the name of one below `data`, or a sound file. model: `ours` or one of
    training.screening.baselines.
    """
    import torch

    from device.sources.files import read_working_rate
    from training.data import recordings as training_data

    net, hear, every_s, centres, hz = _hearing(model, checkpoint)
    spans: Sequence[tuple[float, float, str]] = ()
    if Path(recording).is_file():
        sound, name = read_working_rate(recording)[0], Path(recording).stem
    else:
        known = {r.record: r for r in training_data.recordings(data)}
        if recording not in known:
            raise BadInput(f"--recording {recording}: no file, and no recording below {data}; name one")
        sound, name = training_data.load(known[recording]), recording
        spans = training_data.states(data).get(recording, ())
    windows = hear(sound)
    with torch.no_grad():
        logits = net(torch.from_numpy(windows)[:, None])[:, 1].numpy()
    k = int(logits.argmax())
    map_, how = saliency_of(net, windows[k])
    probability = 1.0 / (1.0 + np.exp(-float(logits[k])))
    title = f"{name}, {model}: p(abnormal) {probability:.2f} in this window; where it looked by {how}"
    saliency(out, windows[k], map_, k * every_s + centres, hz, title, spans)
    say(f"written: {out}")
    return out


def positions(
    path: Path,
    heard: Mapping[str, tuple[np.ndarray, float | None]],
    expert: str | None,
    title: str,
) -> None:
    """A patient's positions below one another: what the network sees of three seconds, and how sure it is of
    a murmur there. The surest is marked, and the one where the expert heard it best.

    heard: position → (log band powers (bands, frames), probability of a murmur or None).
    """
    figure = Figure(figsize=(9, 1.5 * len(heard) + 0.6), layout="constrained", dpi=80)
    panels = figure.subplots(len(heard), 2, squeeze=False, width_ratios=[6, 1])
    known = {name: p for name, (_, p) in heard.items() if p is not None}
    surest = max(known, key=known.__getitem__) if known else None
    for (left, right), (name, (x, probability)) in zip(panels, heard.items(), strict=True):
        t = np.arange(x.shape[1]) * _FRAME_S
        left.pcolormesh(t, np.arange(x.shape[0]), x, cmap="gray_r", shading="nearest", rasterized=True)
        left.set_yticks([])
        left.set_ylabel(name, rotation=0, labelpad=16)
        right.barh([0], [probability or 0.0], color=_ALERT if name == surest else _INK)
        right.set_xlim(0, 1)
        right.set_yticks([])
        told = "unknown" if probability is None else f"{probability:.2f}"
        marks = [word for word, at in (("surest", surest), ("expert: loudest", expert)) if name == at]
        right.set_title(", ".join([told, *marks]), fontsize=8, loc="right")
    panels[-1][0].set_xlabel("seconds")
    panels[-1][1].set_xlabel("p(murmur)", fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


_FRAME_S = 0.02


def draw_positions(data: Path, patient: str, out: Path, bundle: Path | None = None, say: Say = print) -> Path:
    """A CirCor patient's positions by the bundle: where the murmur is surest. BadInput for one not there."""
    from device.inference import bundle as bundles
    from device.screening import features, screen
    from training.data import recordings as training_data
    from training.data.recordings import loudest_positions

    own = [r for r in training_data.recordings(data) if r.meta.get("patient") == patient]
    if not own:
        raise BadInput(
            f"--recording {patient}: no patient of CirCor below {data}; give a number such as 68379"
        )
    entry = bundles.load(bundle).model("classifier")
    network, view = screen.Int8Network(entry), features.View.of(entry.meta)
    heard: dict[str, tuple[np.ndarray, float | None]] = {}
    for recording in own:
        sound = training_data.load(recording)
        found = screen.screen_recording(sound, entry, network=network)
        power = features.screening_frames_of(features.at_least_a_window(sound))[: features.FRAMES]
        x = features.network_input(power, view)[:, : int(3 / _FRAME_S)]
        where = recording.meta.get("position", recording.record)
        if where not in heard or (found.murmur or 0.0) > (heard[where][1] or 0.0):
            heard[where] = (x, found.murmur)
    said = own[0].meta.get("murmur", "unknown")
    title = f"CirCor, patient {patient}; murmur by the expert: {said}"
    positions(out, heard, loudest_positions(data).get(patient), title)
    say(f"written: {out}")
    return out
