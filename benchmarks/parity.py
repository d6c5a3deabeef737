"""The largest errors of our networks and of training them, against PyTorch's and others' networks.

    python -m benchmarks.parity [--only=resnet50] [--out=results/parity.json]

`errors` are those of ported networks: max |ours - reference| / max |reference|, float32, on random weights and
random running statistics, for every stage and the logits. `training` compares twenty steps of SGD with momentum from
the same weights on the same batches. Both are what the tests of tests/porting measure. torchvision, timm and
transformers are needed beside PyTorch; Keras (on its JAX backend) with h5py.
"""

import argparse
import importlib.metadata
import sys
import time

from benchmarks import record

sys.path.insert(0, str(record.REPOSITORY / "tests" / "porting"))
import keras_parity
import parity
import sgd
import training_parity


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose name contains this; no training")
    record.add_arguments(parser)
    args = parser.parse_args()
    recording = record.Recording(parser, args)
    errors, training = {}, {}

    def show(case, reference, found, start):
        errors[f"{case}/{reference}"] = found
        worst = max(found, key=found.get)
        seconds = time.perf_counter() - start
        line = f"{case:28} {reference:12} {found[worst]:.2e} at {worst} ({seconds:.0f} s)"
        print(line, file=sys.stderr, flush=True)

    for case in (case for case in parity.CASES if args.only in case.id):
        start = time.perf_counter()
        for reference, found in parity.measure(case).items():
            show(case.id, reference, found, start)
    for case in (case for case in keras_parity.CASES if args.only in case.id):
        start = time.perf_counter()
        show(case.id, "keras", keras_parity.measure(case), start)
    for name, settings in training_parity.NETWORKS.items() if not args.only else ():
        training[name] = {
            "stem": settings.options.get("stem"),
            "image_size": settings.size,
            "steps": sgd.NUM_STEPS,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            **training_parity.measure(name),
        }
        print(f"{name}: losses {training[name]['loss_error']:.1e}", file=sys.stderr, flush=True)
    references = {
        name: importlib.metadata.version(name)
        for name in ("torchvision", "timm", "transformers", "keras")
    }
    recording.write({"errors": errors, "training": training, "references": references})


if __name__ == "__main__":
    main()
