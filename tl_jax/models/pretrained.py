"""The registry of pretrained weights: where they come from and the preprocessing they expect.

A table only; `tl_jax.porting.fetch` gets the file.

Source: repository names, image sizes, crop fractions, interpolations and licences are those of the
`default_cfgs` in `timm/models/resnet.py` and `vgg.py` (timm 1.0.31). Top-1 accuracies of the `tv` and `tv2`
weights are the `acc@1` of the weight enums in `torchvision/models/resnet.py` and `vgg.py` (torchvision 0.29.2),
measured at the image size and crop given here; all others are from `results/results-imagenet.csv`
of huggingface/pytorch-image-models at revision 0173a139, measured at `top1_image_size` and
`top1_crop_fraction`. Those of the `keras` weights are the ones of https://keras.io/api/applications/, their
addresses, MD5 and preprocessing those in `src/applications/vgg16.py`, `vgg19.py`, `resnet.py` and `imagenet_utils.py`
(keras 3.15.1); Keras states a single central crop of 224 px (README of keras-team/keras-applications), not the
resize before it, for which 256 px are taken. None has been measured by this project, but for that of the packaged
weights.
"""

import dataclasses
import fnmatch

from tl_jax.errors import unknown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Subtracted from pixels in [0, 255], which are not scaled: 123.68, 116.779 and 103.939 for R, G and B.
CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
TINY_IMAGENET_MEAN = (0.4802, 0.4481, 0.3975)
TINY_IMAGENET_STD = (0.2302, 0.2265, 0.2262)


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """One set of pretrained weights with the preprocessing it was evaluated with.

    Attributes:
        name: the registry name, `MODEL.RECIPE`.
        model: the name for `models.create_model`.
        repo_id: the repository on the Hugging Face hub; empty for packaged weights and those with an `address`.
        filename: the file in that repository, or in `tl_jax/weights/`, or as it is kept.
        revision: branch, tag or commit of the repository.
        sha256: the digest of the file where its publisher states one in advance, else None; the hub
            states the digest with each download, and `porting.fetch` checks that one.
        licence: the SPDX identifier of the weights' licence.
        mean, std: per channel, on the [0, 1] scale, of the images that the ported network takes: R, G, B.
        image_size: height and width of the network's input, in pixels.
        crop_fraction: `image_size` over the shorter side to which the image is resized before the
            centre crop.
        interpolation: of that resize, "bilinear" or "bicubic".
        channel_order: of the images that the network of the file takes, "rgb" or "bgr"; porting reverses the
            first kernel of the latter, so that the ported network takes RGB.
        top1_accuracy: on the ImageNet-1k validation split (packaged weights: on their own
            validation split), a fraction as the publisher states it; None where it states none.
        top1_image_size, top1_crop_fraction: where that accuracy was measured.
        source: address of the weights and citation of the recipe.
        stem: "imagenet" or "cifar", of ResNets.
        num_classes: number of classes of the head; 0 where the file has none.
        packaged: whether the file comes with this package.
        address: of the file, where its publisher is not on the hub; empty elsewhere.
        md5: the digest of the file at that address, as its publisher states it.
    """

    name: str
    model: str
    repo_id: str
    filename: str
    revision: str
    sha256: str | None
    licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    crop_fraction: float
    interpolation: str
    top1_accuracy: float | None
    top1_image_size: int
    top1_crop_fraction: float
    source: str
    channel_order: str = "rgb"
    stem: str = "imagenet"
    num_classes: int = 1000
    packaged: bool = False
    address: str = ""
    md5: str = ""

    @property
    def resize_size(self) -> int:
        """The shorter side, in pixels, to which an image is resized before the centre crop."""
        return int(self.image_size / self.crop_fraction)

    @property
    def url(self) -> str:
        """The address of the file, on the Hugging Face hub unless it has one of its own."""
        if self.address:
            return self.address
        return f"https://huggingface.co/{self.repo_id}/resolve/{self.revision}/{self.filename}"


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """What the weights of one table share; `top1` is percent by model."""

    tag: str
    licence: str
    image_size: int
    crop_fraction: float
    interpolation: str
    top1_image_size: int
    top1_crop_fraction: float
    citation: str
    top1: dict[str, float]

    def entries(self) -> list[PretrainedWeights]:
        return [self._entry(model, percent) for model, percent in self.top1.items()]

    def _entry(self, model: str, percent: float) -> PretrainedWeights:
        name = f"{model}.{self.tag}"
        return PretrainedWeights(
            name=name,
            model=model,
            repo_id=f"timm/{name}",
            filename="model.safetensors",
            revision="main",
            sha256=None,
            licence=self.licence,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            image_size=self.image_size,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
            top1_accuracy=round(percent / 100, 5),
            top1_image_size=self.top1_image_size,
            top1_crop_fraction=self.top1_crop_fraction,
            source=f"https://huggingface.co/timm/{name}; {self.citation}",
        )


_STRIKES_BACK = "ResNet strikes back (Wightman et al. 2021, arXiv:2110.00476)"
_TIMM = "timm (https://github.com/huggingface/pytorch-image-models)"
_GLUON = "Bag of Tricks (He et al. 2018, arXiv:1812.01187), https://cv.gluon.ai/model_zoo"
_BILLION = "Billion-scale semi-supervised learning (Yalniz et al. 2019, arXiv:1905.00546)"
_WEAK = (
    "Exploring the limits of weakly supervised pretraining (Mahajan et al. 2018, arXiv:1805.00932)"
)

# Licence, image size, crop fraction, interpolation, image size and crop fraction of the accuracy.
_TV = ("bsd-3-clause", 224, 0.875, "bilinear", 224, 0.875)
# torchvision resizes to 232 for all weights of its new recipe: 224 / 0.965 = 232.1.
_TV2 = ("bsd-3-clause", 224, 0.965, "bilinear", 224, 0.965)
_RSB = ("apache-2.0", 224, 0.95, "bicubic", 288, 1.0)
_RSB_160 = ("apache-2.0", 160, 0.95, "bicubic", 224, 0.95)
_RSB_176 = ("apache-2.0", 176, 0.9, "bicubic", 224, 1.0)
_TIMM_288 = ("apache-2.0", 224, 0.875, "bicubic", 288, 0.95)
_TIMM_224 = ("apache-2.0", 224, 0.875, "bicubic", 224, 0.875)
_FACEBOOK = ("cc-by-nc-4.0", 224, 0.875, "bilinear", 224, 0.875)

# fmt: off
_RECIPES = (
    _Recipe("tv_in1k", *_TV, "torchvision IMAGENET1K_V1", {
        "resnet18": 69.758, "resnet34": 73.314, "resnet50": 76.130, "resnet101": 77.374,
        "resnet152": 78.312, "resnext50_32x4d": 77.618, "resnext101_32x8d": 79.312,
        "wide_resnet50_2": 78.468, "wide_resnet101_2": 78.848,
        "vgg11": 69.020, "vgg13": 69.928, "vgg16": 71.592, "vgg19": 72.376,
        "vgg11_bn": 70.370, "vgg13_bn": 71.586, "vgg16_bn": 73.360, "vgg19_bn": 74.218,
    }),
    _Recipe("tv2_in1k", *_TV2, "torchvision IMAGENET1K_V2", {
        "resnet50": 80.858, "resnet101": 81.886, "resnet152": 82.284, "resnext50_32x4d": 81.198,
        "resnext101_32x8d": 82.834, "wide_resnet50_2": 81.602, "wide_resnet101_2": 82.510,
    }),
    _Recipe("a1_in1k", *_RSB, _STRIKES_BACK, {
        "resnet18": 73.158, "resnet34": 77.918, "resnet50": 81.214, "resnet101": 82.322,
        "resnet152": 82.732, "resnext50_32x4d": 81.466,
    }),
    _Recipe("a2_in1k", *_RSB, _STRIKES_BACK, {
        "resnet18": 72.372, "resnet34": 77.158, "resnet50": 80.772, "resnet101": 82.236,
        "resnet152": 82.608, "resnext50_32x4d": 81.304,
    }),
    _Recipe("a3_in1k", *_RSB_160, _STRIKES_BACK, {
        "resnet18": 68.254, "resnet34": 72.970, "resnet50": 78.048, "resnet101": 79.814,
        "resnet152": 80.546, "resnext50_32x4d": 79.268,
    }),
    _Recipe("a1h_in1k", *_RSB, _STRIKES_BACK, {
        "resnet101": 82.778, "resnet152": 83.450, "resnext50_32x4d": 82.014,
    }),
    _Recipe("a1h_in1k", *_RSB_176, _STRIKES_BACK, {
        "resnet50": 80.676,
    }),
    _Recipe("b1k_in1k", *_RSB, _STRIKES_BACK, {"resnet50": 80.706}),
    _Recipe("b2k_in1k", *_RSB, _STRIKES_BACK, {"resnet50": 80.454}),
    _Recipe("c1_in1k", *_RSB, _STRIKES_BACK, {"resnet50": 80.912}),
    _Recipe("c2_in1k", *_RSB, _STRIKES_BACK, {"resnet50": 80.870}),
    _Recipe("d_in1k", *_RSB, _STRIKES_BACK, {"resnet50": 80.972}),
    _Recipe("bt_in1k", *_TIMM_288, _TIMM, {
        "resnet34": 76.480, "resnet50": 79.640,
    }),
    _Recipe("ra_in1k", *_TIMM_288, _TIMM, {
        "resnet50": 79.836, "resnext50_32x4d": 80.698,
    }),
    _Recipe("ram_in1k", *_TIMM_288, _TIMM, {"resnet50": 79.976}),
    _Recipe("racm_in1k", *_TIMM_288, _TIMM, {"wide_resnet50_2": 82.280}),
    _Recipe("am_in1k", *_TIMM_224, _TIMM, {"resnet50": 78.998}),
    _Recipe("gluon_in1k", *_TIMM_224, _GLUON, {
        "resnet18": 70.838, "resnet34": 74.578, "resnet50": 77.580, "resnet101": 79.310,
        "resnet152": 79.694, "resnext50_32x4d": 79.360,
    }),
    _Recipe("fb_ssl_yfcc100m_ft_in1k", *_FACEBOOK, _BILLION, {
        "resnet18": 72.594, "resnet50": 79.234, "resnext50_32x4d": 80.338,
        "resnext101_32x8d": 81.606,
    }),
    _Recipe("fb_swsl_ig1b_ft_in1k", *_FACEBOOK, _BILLION, {
        "resnet18": 73.282, "resnet50": 81.182, "resnext50_32x4d": 82.174,
        "resnext101_32x8d": 84.302,
    }),
    _Recipe("fb_wsl_ig1b_ft_in1k", *_FACEBOOK, _WEAK, {
        "resnext101_32x8d": 82.698,
    }),
)
# fmt: on

_PACKAGED = (
    PretrainedWeights(
        name="resnet20_cifar.tin32",
        model="resnet20_cifar",
        repo_id="",
        filename="resnet20_cifar_tin32.safetensors",
        revision="",
        sha256="3080b71cbc4dcd3e01e732aeb12db2320dc0c8bf81e81ce5ec055fdab3392494",
        licence="apache-2.0",
        mean=TINY_IMAGENET_MEAN,
        std=TINY_IMAGENET_STD,
        image_size=32,
        crop_fraction=1.0,
        interpolation="bilinear",
        top1_accuracy=0.3541,
        top1_image_size=32,
        top1_crop_fraction=1.0,
        source="trained by this project on Tiny ImageNet resized to 32 px (200 classes)",
        stem="cifar",
        num_classes=200,
        packaged=True,
    ),
)

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
# Network of Keras: model here, licence, percent, MD5 of the file with and without the head.
_KERAS_FILES = {
    "vgg16": (
        "vgg16",
        "cc-by-4.0",
        71.3,
        "64373286793e3c8b2b4e3219cbf3544b",
        "6d6bbae143d832006294945121d1f1fc",
    ),
    "vgg19": (
        "vgg19",
        "cc-by-4.0",
        71.3,
        "cbe5617147190e668d6c5d5026f83318",
        "253f8cb515780f3b799900260a226db6",
    ),
    "resnet50": (
        "keras_resnet50",
        "mit",
        74.9,
        "2cb95161c43110f7111970584f804107",
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "resnet101": (
        "keras_resnet101",
        "mit",
        76.4,
        "f1aeb4b969a6efcfb50fad2f0c20cfc5",
        "88cf7a10940856eca736dc7b7e228a21",
    ),
    "resnet152": (
        "keras_resnet152",
        "mit",
        76.6,
        "100835be76be38e30d865e96f2aaae62",
        "ee4c566cf9a93f14d82f913c2dc6dd0c",
    ),
}


def _keras_entries(network: str) -> list[PretrainedWeights]:
    """Returns the weights of a network of Keras, with its head and without."""
    model, licence, percent, *digests = _KERAS_FILES[network]
    folder = "resnet" if network.startswith("resnet") else network
    entries = []
    for tag, suffix, md5 in zip(
        ("keras_in1k", "keras_in1k_notop"), ("", "_notop"), digests, strict=True
    ):
        filename = f"{network}_weights_tf_dim_ordering_tf_kernels{suffix}.h5"
        entries.append(
            PretrainedWeights(
                name=f"{model}.{tag}",
                model=model,
                repo_id="",
                filename=filename,
                revision="",
                sha256=None,
                licence=licence,
                mean=CAFFE_MEAN,
                std=CAFFE_STD,
                image_size=224,
                crop_fraction=0.875,
                interpolation="bilinear",
                top1_accuracy=None if suffix else round(percent / 100, 5),
                top1_image_size=224,
                top1_crop_fraction=0.875,
                source="https://keras.io/api/applications/; ported by Keras from the weights of the paper's authors",
                channel_order="bgr",
                num_classes=0 if suffix else 1000,
                address=f"{_KERAS}/{folder}/{filename}",
                md5=md5,
            )
        )
    return entries


_REGISTRY = {
    weights.name: weights
    for weights in sorted(
        [
            *_PACKAGED,
            *(entry for recipe in _RECIPES for entry in recipe.entries()),
            *(entry for network in _KERAS_FILES for entry in _keras_entries(network)),
        ],
        key=lambda weights: weights.name,
    )
}


def list_pretrained(pattern: str = "*") -> list[str]:
    """Returns the sorted names of the registered weights that match a shell-style `pattern`.

    Example:
        >>> list_pretrained("resnet18.a*")
        ['resnet18.a1_in1k', 'resnet18.a2_in1k', 'resnet18.a3_in1k']
    """
    return fnmatch.filter(_REGISTRY, pattern)


def get_pretrained(name: str) -> PretrainedWeights:
    """Returns the registered weights called `name`.

    Raises:
        InputError: if no weights have that name; the message names the nearest ones.
    """
    if name not in _REGISTRY:
        raise unknown("pretrained weights", name, _REGISTRY)
    return _REGISTRY[name]
