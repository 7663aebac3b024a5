"""Try a recipe of the screening network: train, and tell fold 1, and sources that were left out, by database.

python -m training.screening.trial --recipe my.toml --hold-out a --trial "without a"
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device.screening import features
from training.core.provenance import RESULTS, commit_id
from training.core.results import write_json
from training.core.say import say
from training.screening.corpus import Corpus
from training.screening.evaluate import describe, evaluate
from training.screening.recipe import load_recipe
from training.screening.train import train

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the screening network and print fold 1 by database.")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/stethopi").expanduser())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hold-out", nargs="*", default=[])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="change single keys of the recipe"
    )
    parser.add_argument(
        "--trial", metavar="NAME", help="add the figures to docs/results/screening-trials.json"
    )
    options = parser.parse_args(argv)
    changes: dict[str, Any] = {
        key: json.loads(value) for key, value in (s.split("=", 1) for s in options.set)
    }
    if options.hold_out:
        changes["hold_out"] = tuple(options.hold_out)
    recipe = load_recipe(options.recipe, **changes)

    corpus = Corpus(options.data, options.cache, say)
    corpus.into_memory()
    net = train(corpus, recipe, options.out, say)
    trial: dict[str, Any] = {
        "changes": {key: value for key, value in changes.items() if key != "hold_out"},
        "left_out": list(recipe.hold_out),
        "fold_1": evaluate(net, corpus, [recipe.decide]),
    }
    print(describe(trial["fold_1"]), flush=True)
    if recipe.hold_out:
        # never heard in training: all of its folds may decide, but for the one that is reported
        trial["left_out_folds_1_to_4"] = evaluate(
            net, corpus, range(1, 5), recipe.hold_out, 2 * features.FRAMES_EVERY
        )
        print("left out:\n" + describe(trial["left_out_folds_1_to_4"]), flush=True)
    if options.trial:
        path = RESULTS / "screening-trials.json"
        trials = json.loads(path.read_text("utf-8")) if path.is_file() else []
        trials.append({"name": options.trial, "commit": commit_id(), "seed": recipe.seed, **trial})
        write_json(path, trials)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
