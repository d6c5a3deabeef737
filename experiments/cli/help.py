"""What --help prints."""

import pathlib
from collections.abc import Callable


def help_text(main: Callable[[], object]) -> str:
    """Returns what --help prints: what the command does, its flags and fields of most use, its exit codes."""
    name = pathlib.Path(main.__globals__["__file__"]).stem
    purpose = (main.__globals__["__doc__"] or "").strip().splitlines()[0]
    lines = [f"experiments.{name}: {purpose}", ""]
    if name in _OWN_FLAGS:
        rows = _OWN_FLAGS[name]
        where = "All flags: --helpfull."
    else:
        rows = [("--config=FILE", "the experiment, such as configs/quickstart.py")]
        if name == "evaluate":
            rows.append(("--checkpoint=RUN", "or the folder of a run, which brings its own config"))
        if name == "compare":
            rows.append(("RUN RUN ...", "or the folders of finished runs, shown side by side"))
            rows.append(("--out=DIR", "of run folders: where the page is written; unset: nowhere"))
        rows.append(("--workdir=DIR", "the run folder: new, or one to resume"))
        rows += [
            (f"--config.{field}", text) for field, text in _HELP_FIELDS.get(name, _FINETUNE_FIELDS)
        ]
        if name in ("finetune", "cross_validate"):
            rows.append(("--strategy=lp_ft", "a published way to adapt (docs/strategies.md)"))
        if name in ("finetune", "pretrain"):
            rows.append(
                ("--protocol=vtab_1k", "a published experiment's terms (docs/protocols.md)")
            )
        where = (
            "--config.FIELD=VALUE sets any field; --list_fields lists all. All flags: --helpfull."
        )
    width = max(len(flag) for flag, _ in rows)
    lines += [f"  {flag.ljust(width)}  {text}" for flag, text in rows]
    lines += ["", where, _EXIT_CODES]
    return "\n".join(lines)


_DATA_FIELD = ("data.name=folder:photos", "the data; or digits, tfds:NAME, npz:FILE")
_WEIGHTS_FIELD = ("init.weights=resnet18.tv_in1k", "a registered name, a file or a run folder")
_RATE_FIELD = ("optim.learning_rate=0.01", "the peak learning rate")
_FINETUNE_FIELDS = (_DATA_FIELD, _WEIGHTS_FIELD, _RATE_FIELD)
_HELP_FIELDS = {
    "pretrain": (
        _DATA_FIELD,
        ("model.name=resnet18", "the network, trained from random weights"),
        ("train.epochs=90", "the length (--config.train.steps=0 with it)"),
    ),
    "evaluate": (
        _DATA_FIELD,
        ("data.test_split=test", "the split that is evaluated"),
        ("init.weights=FILE", "with --config and --config.init.head=keep: these weights"),
    ),
    "compare": (
        _DATA_FIELD,
        ("compare.seeds=0,1,2", "the seeds of every method"),
        ("train.steps=80", "the length of every run, in updates"),
    ),
    "sweep": (
        _DATA_FIELD,
        (
            "sweep.learning_rate=0.1,1.0",
            "its values; also weight_decay, label_smoothing and l2_sp",
        ),
        ("sweep.seed=0,1,2", "the seeds of every combination"),
    ),
    "probe": (
        _DATA_FIELD,
        _WEIGHTS_FIELD,
        ("data.validation_fraction=0.2", "held out of train, to choose the L2 strength"),
    ),
    "features": (
        _DATA_FIELD,
        _WEIGHTS_FIELD,
        ("features.boundary=stage3", "which features; empty: the last ones before the head"),
        ("features.format=tfds", "or npz"),
    ),
    "routes": (
        _DATA_FIELD,
        _WEIGHTS_FIELD,
        ("routes.methods=lda,logistic", "also linear_svm, rbf_svm, knn"),
        ("routes.finetuned=RUN", "the folder of a run on the same test split, shown beside"),
    ),
    "cross_validate": (
        _DATA_FIELD,
        _WEIGHTS_FIELD,
        ("cross_validate.folds=5", "a run for each fold of train"),
    ),
    "preview_augment": (
        _DATA_FIELD,
        ("augment.flip=True", "what is done to training images: fields of augment"),
        ("seed=1", "other draws"),
    ),
    "profile": (
        ("model.name=resnet50", "the network"),
        ("data.batch_size=64", "images in a batch"),
        ("model.dtype=bfloat16", "the type of its numbers"),
    ),
}
_OWN_FLAGS = {
    "ablate": [
        ("--spec=FILE", "the ablation, such as configs/ablations/null.py"),
        ("--workdir=DIR", "the folder of the ablation: new, or one to go on with"),
        ("--config.data.data_dir=DIR", "any field of its base"),
        ("--dry_run", "print the runs, and train nothing"),
        ("--peek=validation", "show validation as far as it is known, and train nothing"),
        (
            "--executor=local",
            "launchers on this machine, or slurm: by submitit; --workers=N of them",
        ),
        ("--amend=REASON", "why the spec is changed after test was opened; logged and shown"),
    ],
    "extend_data": [
        ("--config=FILE", "the experiment whose training images are augmented"),
        ("--out=DIR", "the folder of the new data set: new or empty"),
        ("--copies=4", "augmented copies of each training image"),
        ("--store_as=png", "or jpeg: class folders; tfds: a TFDS directory"),
        ("--config.augment.flip=True", "what is done to the copies: fields of augment"),
        ("--config.data.validation_fraction=0.1", "held out before, and never augmented"),
    ],
    "inspect_data": [
        ("DATA", "such as folder:photos, photos.zip as folder:photos.zip, csv:FILE; or --config"),
        ("--config=FILE", "the splits of an experiment, such as configs/quickstart.py"),
        ("--workdir=DIR", "where inspection.html and inspection.json are written; unset: nowhere"),
    ],
    "prepare_data": [
        ("--dataset=cifar10", "or cifar100"),
        ("--data_dir=DIR", "where prepared data sets are kept"),
        ("--archive=FILE", "the publisher's archive, where it is not to be downloaded"),
    ],
    "predict": [
        ("RUN", "the folder of a finished run"),
        ("IMAGE...", "images, and folders of images"),
        ("--top=3", "classes named for each image"),
        ("--format=table", "or csv, json"),
        ("--unreadable=stop", "at images that cannot be read, or skip: leave them out"),
    ],
}
_EXIT_CODES = (
    "Exit codes: 0 done; 2 the input is wrong, the message says what to change; 75 stopped on request with a\n"
    "checkpoint saved, the same command resumes; 1 anything else."
)
