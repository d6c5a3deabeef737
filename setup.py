"""Packaging of tl_jax; tools are configured in pyproject.toml."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tl_jax/__init__.py").read_text())[1]

setuptools.setup(
    name="tl_jax",
    version=VERSION,
    description="Transfer learning on images with JAX: port, freeze, fine-tune, defend every number",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=setuptools.find_packages(include=["tl_jax*"]),
    package_data={
        "tl_jax": ["weights/*.safetensors", "weights/*.md"],
        "tl_jax.advice": ["findings.json"],
        "tl_jax.reporting": ["templates/*"],
    },
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.30",
        "tensorflow-datasets>=4.9.9",
        "ml-collections>=1.0",
        "grain>=0.2.12",
        "array_record>=0.8",
        "importlib_resources",
        "absl-py>=2",
        "safetensors>=0.5",
        "huggingface_hub>=0.30",
        "filelock>=3.12",
        "scikit-learn>=1.5",
        "pillow>=10.1",
        "matplotlib>=3.9",
        "rich>=13",
        "tensorboardX>=2.6",
        "Jinja2>=3.1",
        "numpy>=1.26",
        "scipy>=1.13",
        "ml_dtypes",
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        # Preparing tfds data sets other than CIFAR may need TensorFlow; reading them never does.
        "prepare": ["tensorflow>=2.18"],
        # To read .pth, .pt, .th and .bin.
        "torch": ["torch>=2.6"],
        # To read .h5, .hdf5 and .keras.
        "keras": ["h5py>=3.11"],
        "export": ["jax2onnx>=0.10"],
        # For --executor=local and slurm of experiments.ablate.
        "cluster": ["submitit>=1.5"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "h5py>=3.11",
            "submitit>=1.5",
            "ruff>=0.14",
            "mypy>=1.18",
        ],
    },
)
