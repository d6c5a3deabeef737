"""Whether advice was right on data sets that no finding is of: what it says of each seed's images, what runs show.

    python -m benchmarks.advice [--data_dir=DIR] [--out=results/advice.json]

Digits of scikit-learn and photos of animals (animals64.zip in --data_dir), 10 labels per class, 5 seeds. Each piece
of advice is judged by an ablation over the same seeds, in --workdir; see `_judged`.
"""

import argparse
import pathlib
from typing import Any

from benchmarks import record
from tl_jax import ablation, advice, load_config
from tl_jax.advice import sentences
from tl_jax.statistics import paired_difference

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
DATA = ("digits", "folder:animals64.zip")
SEEDS = (0, 1, 2, 3, 4)
SHOTS = 10
RATES = (0.01, 0.05)
DEPTHS = {
    "freeze.strategy=backbone": "head",
    "freeze.strategy=up_to:stem": "after_stem",
    "freeze.strategy=up_to:stage1": "after_stage1",
    "freeze.strategy=up_to:stage2": "after_stage2",
    "freeze.strategy=none": "all",
}


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", default=REPOSITORY / "runs" / "advice", type=pathlib.Path)
    parser.add_argument("--data_dir", default="", help="of animals64.zip")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    rows = [row for data in DATA for row in _of(data, args.data_dir, args.workdir)]
    recording.write(
        {
            "rows": rows,
            "right": sum(row["right"] for row in rows),
            "given": len(rows),
            "labels_per_class": SHOTS,
            "seeds": list(SEEDS),
        }
    )


def _of(data: str, data_dir: str, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns a row for each verdict on a data set."""
    base = load_config(REPOSITORY / "configs" / "few_labels_flowers.py")
    base.data.name, base.data.examples_per_class = data, SHOTS
    if data_dir:
        base.data.data_dir = data_dir
    said = []
    for seed in SEEDS:
        config = base.copy_and_resolve_references()
        config.seed = seed
        said.append(advice.say(advice.gather(config), advice.load_findings()))
    first = {one.verdict for of in said for one in of if one.question == sentences.STRATEGY}
    variants: dict[str, Any] = {"all": "full_finetune", "random": "random_init"}
    variants |= {name: (assignment,) for assignment, name in DEPTHS.items() if name != "all"}
    variants |= {name: name for name in sorted(first - {"", "full_finetune", "random_init"})}
    spec = ablation.Spec(
        base, variants=variants, seeds=SEEDS, tune={"optim.learning_rate": RATES}, baseline="all"
    )
    name = data.partition(":")[2].partition(".")[0] or data
    content = ablation.ablate(spec, workdir / name, progress=True)
    test = {
        variant: {
            run["seed"]: run["test"]
            for run in content["runs"]
            if run["variant"] == variant and run.get("test") is not None
        }
        for variant in variants
    }
    return [
        {"data": data, "seed": seed, "question": one.question, "said": one.text, **judged}
        for seed, of in zip(SEEDS, said, strict=True)
        for one in of
        if one.verdict and (judged := _judged(one, test)) is not None
    ]


def _judged(sentence: advice.Sentence, test: dict[str, dict[int, float]]) -> dict[str, Any] | None:
    """Returns what runs showed of a verdict, and whether it was right.

    "yes" is right where fine-tuning is better from the weights than from random ones, "no" where it is worse,
    "unclear" where no difference is seen. A depth, or a strategy, is right where none of the others that were run is
    better by an interval that leaves out zero.
    """
    if sentence.question == sentences.TRANSFER:
        found = paired_difference(test["all"], test["random"])
        low, high = found.interval
        seen = "yes" if low > 0 else "no" if high < 0 else "unclear"
        return {
            "verdict": sentence.verdict,
            "compared": "fine-tuning from the weights with random ones",
            "difference": found.mean,
            "interval": [low, high],
            "right": sentence.verdict == seen,
        }
    if sentence.question == sentences.DEPTH:
        ours, others = DEPTHS.get(sentence.verdict, ""), list(DEPTHS.values())
    elif sentence.question == sentences.STRATEGY:
        ours = {"full_finetune": "all", "random_init": "random"}.get(
            sentence.verdict, sentence.verdict
        )
        others = list(test)
    else:
        return None
    if ours not in test:
        return None
    rivals = {name: paired_difference(test[name], test[ours]) for name in others if name != ours}
    best = max(rivals, key=lambda name: rivals[name].mean)
    return {
        "verdict": sentence.verdict,
        "compared": f"{best}, the best of the others, with {ours}",
        "difference": rivals[best].mean,
        "interval": list(rivals[best].interval),
        "right": not any(one.interval[0] > 0 for one in rivals.values()),
    }


if __name__ == "__main__":
    main()
