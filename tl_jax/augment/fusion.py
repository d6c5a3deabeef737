"""What the compiler is kept from computing more than once."""

import jax


def computed_once(array: jax.Array) -> jax.Array:
    """Returns the array, which the program then holds in memory before anything is made of it.

    XLA copies cheap steps into each of their users. Where a user reads a value several times (a histogram and the
    lookup after it, the neighbours of a pixel), or sums it up, a warp or a table would be computed again each time:
    on CPUs, one change of RandAugment takes three times as long without. Values are the same.
    """
    return jax.lax.optimization_barrier(array)
