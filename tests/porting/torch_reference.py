"""The reference networks in PyTorch, and their features after each of our boundaries."""

import collections
import functools
import itertools

import torch
from torch import nn
from torch.nn import functional as F

# Held for the life of the process: the declared operators go with it.
_LIBRARY = None
_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@functools.cache
def torchvision_models():
    """Returns `torchvision.models`, also where torchvision has no compiled operators for this CPU.

    Without them `import torchvision` fails where it attaches fake kernels to some of them, unless
    they are declared; the networks never call them.
    """
    global _LIBRARY
    try:
        import torchvision.models
    except RuntimeError:
        _forget_torchvision()
        _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
        for name, signature in _OPERATORS.items():
            if not hasattr(torch.ops.torchvision, name):
                _LIBRARY.define(name + signature)
        import torchvision.models
    return torchvision.models


def _forget_torchvision():
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def load(make, state_dict):
    """Returns the network of `make()` in inference, holding `state_dict` (strict)."""
    with torch.device("meta"):
        net = make()
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state_dict.items()}
    net.load_state_dict(tensors, strict=True, assign=True)
    return net.eval()


@torch.no_grad()
def boundary_features(net, images):
    """Returns {boundary: NHWC array} of a torchvision, timm or CIFAR network for NHWC images.

    Read off in one pass of the network's own `forward`: what goes into the first stage, comes out of
    each, goes into the head and comes out of it.
    """
    features = {}

    def before(boundary):
        return lambda module, inputs: features.update({boundary: to_numpy(inputs[0])})

    def after(boundary):
        return lambda module, inputs, output: features.update({boundary: to_numpy(output)})

    stages = [name for name in ("layer1", "layer2", "layer3", "layer4") if hasattr(net, name)]
    head = net.fc if hasattr(net, "fc") else net.linear
    handles = [net.layer1.register_forward_pre_hook(before("stem"))]
    for number, name in enumerate(stages, start=1):
        handles.append(getattr(net, name).register_forward_hook(after(f"stage{number}")))
    handles.append(head.register_forward_pre_hook(before("pool")))
    handles.append(head.register_forward_hook(after("head")))
    net(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    for handle in handles:
        handle.remove()
    return features


@torch.no_grad()
def vgg_features(net, images):
    """Returns {boundary: NHWC array} of a torchvision or timm VGG for NHWC images.

    Read off in one pass of the network's own `forward`: what comes out of each max-pool, goes into the hidden
    layers (flattened in our order), goes into the head and comes out of it.
    """
    features = {}

    def before(boundary):
        return lambda module, inputs: features.update({boundary: to_numpy(inputs[0])})

    def after(boundary):
        return lambda module, inputs, output: features.update({boundary: to_numpy(output)})

    pools = [layer for layer in net.features if isinstance(layer, nn.MaxPool2d)]
    handles = [
        layer.register_forward_hook(after(f"stage{number}"))
        for number, layer in enumerate(pools, start=1)
    ]
    timm = hasattr(net, "pre_logits")
    if timm:
        handles.append(net.pre_logits.fc1.register_forward_pre_hook(before("pool")))
    else:
        handles.append(net.avgpool.register_forward_hook(after("pool")))
    head = net.head.fc if timm else net.classifier[-1]
    if timm or len(net.classifier) > 1:
        handles.append(head.register_forward_pre_hook(before("hidden")))
    handles.append(head.register_forward_hook(after("head")))
    net(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    for handle in handles:
        handle.remove()
    features["pool"] = features["pool"].reshape(len(images), -1)
    return features


@torch.no_grad()
def huggingface_features(net, images):
    """Returns {boundary: NHWC array} of a transformers `ResNetForImageClassification`."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    inner = net.resnet(x, output_hidden_states=True)
    names = ["stem", *(f"stage{number}" for number in range(1, len(inner.hidden_states)))]
    features = dict(zip(names, inner.hidden_states, strict=True))
    features["pool"] = inner.pooler_output.flatten(1)
    features["head"] = net(x).logits
    return {name: to_numpy(value) for name, value in features.items()}


def to_numpy(tensor):
    """Returns an NCHW tensor as an NHWC array, other ranks as they are."""
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def state_dict_arrays(net):
    """Returns {name: numpy array} of the network's state dict."""
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


class CifarBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut subsamples and pads with zero channels (option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.pad = stride, outputs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad // 2, self.pad // 2)
        )
        return torch.relu(y + shortcut)


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2, with the module names of akamaster/pytorch_resnet_cifar10."""

    def __init__(self, blocks, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for number, (inputs, outputs) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            first = CifarBlock(inputs, outputs, 1 if number == 1 else 2)
            rest = [CifarBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class CifarProjectionResNet(CifarResNet):
    """The same with projections as shortcuts (option B), named as torchvision names them."""

    def __init__(self, blocks, num_classes):
        super().__init__(blocks, num_classes)
        block = torchvision_models().resnet.BasicBlock
        for number, (inputs, outputs) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            stride = 1 if number == 1 else 2
            projection = None
            if stride > 1:
                projection = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )
            rest = [block(outputs, outputs) for _ in range(blocks - 1)]
            setattr(
                self,
                f"layer{number}",
                nn.Sequential(block(inputs, outputs, stride, projection), *rest),
            )
        self.fc = self.linear
        del self.linear

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def torchvision_resnet(name, num_classes, stem="imagenet"):
    """Returns torchvision's network; stem "cifar" has a 3x3 convolution and no max-pool."""
    net = getattr(torchvision_models(), name)(num_classes=num_classes)
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    return net


def torchvision_vgg(name, num_classes, classifier="hidden", hidden_width=0):
    """Returns torchvision's network; classifier "pooled" is one dense layer on globally pooled features.

    With `hidden_width` its hidden layers have that many features, and no dropout.
    """
    net = getattr(torchvision_models(), name)(num_classes=num_classes)
    if hidden_width:
        widths = [512 * 49, hidden_width, hidden_width, num_classes]
        for layer, (inputs, outputs) in zip((0, 3, 6), itertools.pairwise(widths), strict=True):
            net.classifier[layer] = nn.Linear(inputs, outputs)
        net.classifier[2].p = net.classifier[5].p = 0.0
    if classifier == "pooled":
        net.avgpool = nn.AdaptiveAvgPool2d(1)
        head = nn.Linear(512, num_classes)
        net.classifier = nn.Sequential(collections.OrderedDict({"6": head}))
    return net


def huggingface_vgg(name, num_classes):
    """Returns transformers' wrapper of timm's network of that name."""
    torchvision_models()
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig(architecture=name, num_labels=num_classes, do_pooling=True)
    return TimmWrapperForImageClassification(config)


def timm_network(name, num_classes):
    """Returns timm's network of the same name, without weights."""
    torchvision_models()
    import timm

    return timm.create_model(name, pretrained=False, num_classes=num_classes)


def cifar_resnet(name, num_classes):
    """Returns the CIFAR network of that name; those ending in `_b` have projections."""
    blocks = (int(name.split("_")[0].removeprefix("resnet")) - 2) // 6
    make = CifarProjectionResNet if name.endswith("_b") else CifarResNet
    return make(blocks, num_classes)


def huggingface_resnet(name, num_classes):
    """Returns transformers' v1.5 network with the sizes of `resnet18`, `resnet50`, ..."""
    torchvision_models()
    from transformers import ResNetConfig, ResNetForImageClassification

    depths = {"resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3]}[name]
    bottleneck = name == "resnet50"
    config = ResNetConfig(
        depths=depths,
        layer_type="bottleneck" if bottleneck else "basic",
        hidden_sizes=[256, 512, 1024, 2048] if bottleneck else [64, 128, 256, 512],
        downsample_in_bottleneck=False,
        num_labels=num_classes,
    )
    return ResNetForImageClassification(config)
