"""What an accelerator makes of this library, in pieces that fit a short loan of one.

    python -m benchmarks.accelerator --stage=STAGE|all --budget=540 --out=DIR [--only=jax] [--size=tiny]
        [--data=NAME --data_dir=DIR] [--weights=FILE] [--epochs=20] [--target=0.9] [--repeat] [--allow_dirty]

Stages, each a file DIR/STAGE.json:

    1 checks             errors against recorded references, a scan against steps, resumed bits, accepted options
    2 resnet50           images a second, share of the peak, memory and compilation of ResNet-50
    3 networks           other networks, several updates a dispatch, sets of compiler options
    4 linear_probe       a linear probe of 100 epochs from the start of the process to its end, cold and warm
    5 time_to_accuracy   fine-tuning from pretrained weights, and a network made for speed trained from scratch

This process imports neither JAX nor PyTorch. Each side (JAX, PyTorch eager, PyTorch compiled) is a process of its own
with a share of the memory (`children`, `child`); it reads one command a line, so that rounds of the sides
take turns. What fails, in whatever way, is recorded in its row, and the next row gets a new process. A file is
written whole after every row. Rows that the budget (seconds) has no room for are listed as not run; called again, the
command goes on with them, and repeats nothing that the same code measured on the same device with the same versions.
Sides that disagree are measured all the same: the row says by how much.

Without PyTorch, or with --only=jax, JAX is measured alone. Without --data there are synthetic images, and for stage 5
handwritten digits. --size=tiny is for tests: seconds on a CPU.

Who does what: `stages` lists the rows, `rows` says what a row is, `parent` goes through them, `timed` measures those
of several sides; `jax_side`, `jax_checks`, `jax_runs`, `torch_side` and `airbench` are what the processes do.
"""
