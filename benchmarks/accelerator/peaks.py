"""What devices compute at most, from their makers' data sheets."""

# FLOP/s of products of dense matrices by precision, by part of a device's name; the first that fits counts.
# NVIDIA gives those of Hopper with sparsity, twice these. "float32" is TF32, which both frameworks may take there.
# Source: data sheets "NVIDIA H100 Tensor Core GPU", "NVIDIA H200 Tensor Core GPU", "NVIDIA A100 Tensor Core GPU".
PEAKS = {
    "H200": {"bfloat16": 989e12, "float32": 494e12},
    "H100 PCIe": {"bfloat16": 756e12, "float32": 378e12},
    "H100 NVL": {"bfloat16": 835e12, "float32": 417e12},
    "H100": {"bfloat16": 989e12, "float32": 494e12},
    "A100": {"bfloat16": 312e12, "float32": 156e12},
}


def peak(kind: str | None, precision: str) -> float | None:
    """Returns the FLOP/s of a device at most; None where this table does not have it.

    Example:
        >>> peak("NVIDIA H100 80GB HBM3", "bfloat16")
        989000000000000.0
    """
    known = next((rates for part, rates in PEAKS.items() if kind and part in kind), {})
    return known.get(precision)
