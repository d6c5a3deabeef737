"""Pure training: state, steps, loops, evaluation, metrics, solvers."""
