"""The fields of what a network sees: images, labels, preprocessing, augmentation; part of the table of all fields."""

from tl_jax.augment import FILLS
from tl_jax.config.field import LARGEST, Field, choice, integer, numbers
from tl_jax.data import order, skipping
from tl_jax.parallel import placement

# Far above the training size of every registered network. A larger value is taken for a typo: it would only
# fail to allocate memory after the run folder was made.
LARGEST_IMAGE_SIZE = 4096

SECTIONS = {
    "data": "Images and labels.",
    "preprocess": "Where the input is to differ from what the weights were trained with.",
    "augment": "Random changes of the training images, on the device.",
}


def _pixels(name: str, default: int, help: str) -> Field:
    return integer(name, default, 0, LARGEST_IMAGE_SIZE, help)


FIELDS = (
    # data
    Field("data.name", "tfds:cifar10", "tfds:NAME, folder:PATH, csv:PATH, npz:PATH or digits"),
    Field("data.data_dir", "", "folder of tfds data sets; empty: the default of tfds"),
    Field(
        "data.cache_dir",
        "~/.cache/tl_jax/decoded",
        "folder of decoded images, archives and the index of image files; empty: nothing is kept",
        changes_numbers=False,
    ),
    choice(
        "data.unreadable",
        "stop",
        skipping.UNREADABLE,
        'images that cannot be read: "stop" lists them, "skip" leaves them out, as if they were not there',
    ),
    Field("data.train_split", "train", "in the notation of tfds, such as train[:20%]"),
    Field("data.test_split", "test", "reported on; val stands in where there is no test"),
    Field("data.validation_split", "", "a separate split to choose the best step by"),
    Field(
        "data.validation_fraction",
        0.1,
        "without validation_split: held out of train, class-balanced",
        within="[0, 1)",
    ),
    integer("data.examples_per_class", 0, 0, LARGEST, "of train, chosen by data.seed; 0: all"),
    integer(
        "data.folds",
        0,
        0,
        LARGEST,
        "parts of train, one of which is reported on in place of test_split (cross-validation); 0: none",
    ),
    integer("data.fold", 1, 1, LARGEST, "which of the folds is reported on"),
    integer(
        "data.seed",
        0,
        0,
        LARGEST,
        "which examples are held out, which few are taken and what the folds are",
    ),
    integer("data.batch_size", 128, 1, LARGEST, "of training, over all devices"),
    integer(
        "data.eval_batch_size",
        500,
        1,
        LARGEST,
        "of evaluation, at most; fewer where a split or 32 MiB of pixels a device hold fewer",
        changes_numbers=False,
    ),
    integer(
        "data.workers",
        0,
        0,
        1024,
        "processes that decode a split larger than memory; 0: threads",
        changes_numbers=False,
    ),
    choice(
        "data.placement",
        "auto",
        placement.PLACEMENTS,
        'where the decoded train split is stored: "device", "host", or "auto": as fits',
        changes_numbers=False,
    ),
    choice(
        "data.order",
        order.SHUFFLED,
        order.ORDERS,
        'of the training examples: "shuffled" anew in every epoch, "stored", or "balanced": every batch holds as '
        "many of each class",
    ),
    _pixels(
        "data.image_size",
        0,
        "side of the network's input; 0: as the weights say, else as stored",
    ),
    # preprocess
    Field(
        "preprocess.weights",
        "",
        "the registered name of a file that was downloaded by hand: sets all of this section",
    ),
    numbers("preprocess.mean", "[0, 1]", "per channel; empty: as the weights say, else CIFAR-10's"),
    numbers("preprocess.std", "(0, 1]", "per channel; empty: as the weights say, else CIFAR-10's"),
    choice(
        "preprocess.interpolation", "", ("", "bilinear", "bicubic"), "empty: as the weights say"
    ),
    _pixels(
        "preprocess.resize",
        0,
        "shorter side before the centre crop; 0: as the weights say, in proportion to data.image_size, else that",
    ),
    # augment
    _pixels(
        "augment.crop_padding",
        4,
        "pixels added to each side of the network's input before a random crop back to its size; 0: no crop",
    ),
    Field("augment.flip", True, "whether images are mirrored at random"),
    Field(
        "augment.operations",
        (),
        '"name=strength", applied in order after crop and flip, such as rotation=15 or rand_augment=9; '
        "docs/augmentation.md lists them",
        element=str,
    ),
    choice(
        "augment.fill",
        "black",
        tuple(FILLS),
        "what lies outside of an image that is shifted or turned; reflect: the image, mirrored, as in Keras",
    ),
    Field(
        "augment.once",
        False,
        "whether an image is changed alike in every epoch, as if train had been augmented before training",
    ),
    Field(
        "augment.mixing",
        (),
        '"name=alpha", mixup or cutmix; of several one is drawn for each update',
        element=str,
    ),
    integer(
        "augment.repeats",
        1,
        1,
        10_000,
        "how many times in a row each image comes, every time changed anew (repeated augmentation)",
    ),
)
