import io

import pytest

from tl_jax.reporting import Progress


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_come_every_ten_seconds_and_at_the_end():
    stream, clock = io.StringIO(), Clock()
    with Progress(100, batch_size=50, stream=stream, clock=clock) as progress:
        for step in range(1, 101):
            progress.update(step, 1 / step)
            clock.seconds += 0.3
    # 50 images in 0.3 s are 167 a second; the last update is at 29.7 s, the end at 30 s.
    assert stream.getvalue().splitlines() == [
        "step 1/100 (1%)  loss 1.0000",
        "step 35/100 (35%)  loss 0.0286  167 images/s  0:00:20 left",
        "step 69/100 (69%)  loss 0.0145  167 images/s  0:00:09 left",
        "step 100/100 (100%)  loss 0.0100  165 images/s",
    ]


def test_a_validation_accuracy_is_a_line_as_soon_as_it_is_measured():
    stream, clock = io.StringIO(), Clock()
    with Progress(100, batch_size=50, stream=stream, clock=clock) as progress:
        for step in (1, 2, 3):
            progress.update(step, 0.5)
            progress.validation(step, 0.25 * step, 1234)
    assert stream.getvalue().splitlines() == [
        "step 1/100 (1%)  loss 0.5000",
        "step 1/100  validation top-1 25.00% of 1,234 images",
        "step 2/100  validation top-1 50.00% of 1,234 images",
        "step 3/100  validation top-1 75.00% of 1,234 images",
        "step 3/100 (3%)  loss 0.5000",
    ]


def test_a_validation_accuracy_stands_in_the_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Terminal(), Clock()
    with Progress(100, batch_size=50, stream=stream, clock=clock) as progress:
        progress.update(10, 0.5)
        progress.validation(10, 0.625, 100)
        clock.seconds = 5.0
        progress.update(20, 0.25)
    assert "validation 62.50%" in stream.getvalue()
    assert "images\n" not in stream.getvalue()


def test_a_resumed_run_counts_speed_from_its_own_start():
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, initial_step=900, batch_size=10, stream=stream, clock=clock) as progress:
        progress.update(910, 1.0)
        clock.seconds = 20.0
        progress.update(950, 0.5)
    # 40 steps of 10 images in 20 s; 50 steps left.
    assert stream.getvalue().splitlines()[1:] == [
        "step 950/1000 (95%)  loss 0.5000  20 images/s  0:00:25 left"
    ]


def test_the_loss_is_read_only_when_shown():
    class Loss:
        reads = 0

        def __float__(self):
            Loss.reads += 1
            return 1.0

    clock = Clock()
    with Progress(50, stream=io.StringIO(), clock=clock) as progress:
        for step in range(1, 51):
            progress.update(step, Loss())
            clock.seconds += 0.1
    assert Loss.reads == 2


@pytest.mark.parametrize("loss", [float("nan"), -1e-9, None])
def test_unusual_losses(loss):
    stream = io.StringIO()
    with Progress(1, stream=stream, clock=Clock()) as progress:
        progress.update(1, loss)
    shown = {None: "", -1e-9: "  loss 0.0000"}.get(loss, "  loss nan")
    expected = f"step 1/1 (100%){shown}"
    assert stream.getvalue().strip() == expected


def test_no_update_no_line():
    stream = io.StringIO()
    with Progress(10, stream=stream) as progress:
        assert progress.images_per_second() is None
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream, clock = Terminal(), Clock()
    with Progress(10, batch_size=50, stream=stream, clock=clock) as progress:
        progress.update(5, 2.0)
        clock.seconds = 1.0
        progress.print("evaluation [of validation]: 0.9")
        progress.update(10, 0.25)
    shown = stream.getvalue()
    assert "step 10/10" in shown and "━" in shown
    assert "loss 0.2500" in shown and "250 images/s" in shown
    assert "evaluation [of validation]: 0.9" in shown
