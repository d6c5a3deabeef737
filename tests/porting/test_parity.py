"""Every registered network against PyTorch's, per stage and for the logits, in float32."""

import numpy as np
import pytest
from fabricate import boundary_features, random_images, random_variables, relative_error

from tl_jax import models, porting

torch = pytest.importorskip("torch")
torch_reference = pytest.importorskip("torch_reference")
parity = pytest.importorskip("parity")

TOLERANCE = 1e-5
# What each reference needs; the CIFAR networks with projections are made of torchvision's blocks.
PACKAGES = {
    "torchvision": "torchvision",
    "timm": "timm",
    "huggingface": "transformers",
    "cifar": "torchvision",
}


@pytest.mark.parametrize(
    "case", parity.CASES, ids=lambda case: case.id + "-" + "-".join(case.references)
)
def test_features_and_logits(case, require):
    require(*(PACKAGES[reference] for reference in case.references))
    errors = parity.measure(case)
    assert set(errors) == set(case.references)
    for reference, per_boundary in errors.items():
        worst = {name: error for name, error in per_boundary.items() if not error <= TOLERANCE}
        assert not worst, f"{reference}: {worst}"


def test_every_registered_model_is_compared():
    """Those of Keras in test_keras_parity.py."""
    elsewhere = {name for name in models.list_models() if name.startswith("keras")}
    elsewhere |= set(parity.OURS_ALONE)
    assert {case.name for case in parity.CASES} == set(models.list_models()) - elsewhere


def test_a_safetensors_export_loads_into_torchvision(tmp_path, require):
    require("torchvision")
    from safetensors.torch import load_file

    model = models.create_model("resnet18", parity.NUM_CLASSES)
    variables = random_variables(model, seed=3)
    path = porting.save_state_dict(
        tmp_path / "exported.safetensors", porting.export_state_dict(variables)
    )
    net = torch_reference.torchvision_resnet("resnet18", parity.NUM_CLASSES)
    net.load_state_dict(load_file(path), strict=True)
    images = random_images((2, 64, 64, 3))
    with torch.no_grad():
        theirs = net.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    ours = boundary_features(model, variables, images)["head"]
    assert relative_error(ours, theirs) < TOLERANCE


def test_a_checkpoint_of_training_loads_from_pth(tmp_path):
    net = torch.nn.DataParallel(torch_reference.cifar_resnet("resnet20_cifar", parity.NUM_CLASSES))
    path = tmp_path / "resnet20.th"
    torch.save({"state_dict": net.state_dict(), "best_prec1": 92.0, "epoch": 7}, path)
    model = models.create_model("resnet20_cifar", parity.NUM_CLASSES)
    variables, report = porting.load_pretrained(path, model, input_shape=(1, 32, 32, 3))
    assert report.naming == "cifar"
    assert report.unwrapped == ('["state_dict"]', "module.")
    assert report.beside == ("best_prec1", "epoch")
    np.testing.assert_array_equal(
        variables["params"]["stem"]["conv"]["kernel"],
        net.module.conv1.weight.detach().numpy().transpose(2, 3, 1, 0),
    )
