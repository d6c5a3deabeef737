"""Pages hold the figures of results/ and no other numbers."""

import json
import sys

import pytest

from benchmarks import figure_cells, figure_tables, figure_timings, figures


def test_every_figure_of_this_repository_comes_from_results(monkeypatch, capsys):
    """The one command: `python -m benchmarks.figures --check`."""
    monkeypatch.setattr(sys, "argv", ["figures", "--check"])
    figures.main()
    assert "every figure comes from results/" in capsys.readouterr().out


def test_the_pages_are_those_that_people_read():
    names = {page.name for page in figures.pages(figures.REPOSITORY)}
    assert {"README.md", "benchmarks.md", "porting.md", "MODEL_CARD.md"} <= names


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Returns a repository with one page and one result."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "probe.json").write_text(json.dumps({"top1": [0.5, 0.676]}))
    page = tmp_path / "README.md"
    page.write_text("Top-1 is <!-- figure: probe.json top1 1 .1% -->67.6%<!-- end -->.\n")
    monkeypatch.setattr(figures, "REPOSITORY", tmp_path)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["figures", *arguments])
    figures.main()


def test_a_changed_result_makes_a_page_stale_until_it_is_written(repository, monkeypatch):
    run(monkeypatch, "--check")
    (repository / "results" / "probe.json").write_text(json.dumps({"top1": [0.5, 0.71]}))
    with pytest.raises(SystemExit, match=r"README.md: figure: probe.json top1 1 .1% is stale"):
        run(monkeypatch, "--check")
    run(monkeypatch)
    assert "-->71.0%<!--" in (repository / "README.md").read_text()
    run(monkeypatch, "--check")


def test_a_page_with_a_stale_table_is_refused(repository, monkeypatch):
    monkeypatch.setitem(figure_cells.TABLES, "tiny", lambda results: "| a |\n|---|\n| 1.5 |")
    page = repository / "README.md"
    page.write_text("<!-- table: tiny -->\n| a |\n|---|\n| 1.4 |\n<!-- end -->\n")
    with pytest.raises(SystemExit, match=r"README.md: table: tiny is stale"):
        run(monkeypatch, "--check")
    run(monkeypatch)
    assert page.read_text() == "<!-- table: tiny -->\n| a |\n|---|\n| 1.5 |\n<!-- end -->\n"


def test_a_number_typed_by_hand_is_refused_with_its_line(repository, monkeypatch):
    page = repository / "README.md"
    page.write_text(page.read_text() + "\nIt takes 9.3 s.\n")
    with pytest.raises(SystemExit, match=r"README.md:3: '9.3' in 'It takes 9.3 s.'"):
        run(monkeypatch, "--check")


MEASUREMENTS = (
    "67.6% of the images",
    "ResNet-20 reaches 0.47",
    "7.95x faster",
    "510,000 images",
    "some 100 GFLOP/s",
    "in 36 ms a step at batch 128",
    "about 1e-6",
    "`67.6%` top-1",
    "takes `3.03x` of the forward pass",
    "one of 162",
    "JAX 0.10.2 takes 15 s",
    "after 10 epochs 68%",
    "| 3 |",
    "ResNet-18 to 3.03",
)


@pytest.mark.parametrize("text", MEASUREMENTS)
def test_measurements_without_origin_are_found(text):
    assert figures.numbers_without_origin(text)


OTHERS = (
    "ResNet-18 to 152, CIFAR-10, uint8, float32, L2-SP, x86-64, `conv1`, H200",
    "Python 3.11 to 3.13, JAX 0.10 to 0.12, JAX 0.10.2, timm 1.0.31",
    "He et al. 2015, section 4.2; (2015); Kumar et al. 2022, Table 1",
    "10 epochs, 5 seeds, 200 images per class, eight or 8 devices",
    "batch 128, batches of 16, batch size 32",
    "32 px, 64-pixel images, 32 pixels, 32 x 32, 3x3 convolutions",
    "losses agree within 1e-5 (tested)",
    "`--config.seed=3`, `0`, [a page](docs/page1.md), images in [0, 255]",
    "1. first\n2. second",
    "exit code 75",
    "```\nsleep 3.5\n```",
    "<!-- source: a paper -->91.8 to 93.6%<!-- end -->",
    "<!-- figure: probe.json top1 .1% -->67.6%<!-- end -->",
)


@pytest.mark.parametrize("text", OTHERS)
def test_other_numbers_pass(text):
    assert figures.numbers_without_origin(text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- figure: probe.json top2 .1% -->1%<!-- end -->", "KeyError 'top2'"),
        ("<!-- figure: none.json top1 .1% -->1%<!-- end -->", "No such file"),
        ("<!-- figure: probe.json top1 2 .1% -->1%<!-- end -->", "list index out of range"),
        ("<!-- figure: probe.json top1 .1% -->1%<!-- end -->", "list.__format__"),
        ("<!-- table: trhoughput -->\n<!-- end -->", "known are .*throughput"),
        ("<!-- figure: probe.json top1 1 .1% -->1%", "not begun or not ended"),
        ("1%<!-- end -->", "not begun or not ended"),
    ],
)
def test_a_figure_that_is_not_there_is_named(repository, text, message):
    with pytest.raises(figures.FigureError, match=message):
        figures.render(text, repository / "results")


def test_means_have_t_intervals():
    """Mean 60, standard deviation 10, three values: 4.3027 * 10 / sqrt(3)."""
    assert figure_cells.interval([0.5, 0.6, 0.7]) == "60.0 ± 24.8"
    assert figure_cells.interval([0.1, 0.2], signed=True) == "+15.0 ± 63.5"
    assert figure_cells.interval([0.354]) == "35.4"


def test_single_runs_have_wilson_intervals():
    """10 of 10: low end 10 / (10 + z^2); 50 of 100 is symmetric: 40.4 to 59.6."""
    assert figure_cells.wilson({"top1_accuracy": 1.0, "examples": 10}) == "72.2 to 100.0"
    assert figure_cells.wilson({"top1_accuracy": 0.5, "examples": 100}) == "40.4 to 59.6"


def comparison():
    return {
        "methods": [
            {"method": "random_init", "values": {"0": 0.5, "1": 0.6}, "wall_seconds": 7.25},
            {"method": "new", "values": {"1": 0.9, "0": 0.7}, "wall_seconds": 8.0},
        ],
        "runs": [{"examples": 500}, {"examples": 500}],
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "device": {"platform": "cpu"},
        "cores": 2,
        "revision": "0123456789abcdef+dirty",
        "busy_elsewhere": 0.25,
        "command": "make quickstart",
    }


def test_a_comparison_pairs_its_differences_by_seed(tmp_path):
    """Differences 0.2 and 0.3: mean 25, standard deviation 7.07, 12.706 * 7.07 / sqrt(2) = 63.5."""
    (tmp_path / "quickstart.json").write_text(json.dumps(comparison()))
    text = figure_tables.quickstart(tmp_path)
    assert "| random initialisation | 55.0 ± 63.5% |  | 2 | 7.2 s |" in text
    assert "| new | 80.0 ± 127.1% | +25.0 ± 63.5 | 2 | 8.0 s |" in text
    assert "500 test images" in text
    assert "revision `0123456789` with changed files" in text
    assert "other programs took 25% of the cores" in text


def test_a_comparison_shows_validation_where_images_were_held_out(tmp_path):
    run = comparison()
    for entry in run["methods"]:
        entry["validation"] = {"values": {"0": 0.5, "1": 0.7}}
    run["runs"] = [{"test_examples": 1200}]
    (tmp_path / "quickstart.json").write_text(json.dumps(run))
    text = figure_tables.quickstart(tmp_path)
    assert "| random initialisation | 60.0 ± 127.1% | 55.0 ± 63.5% |  | 2 | 7.2 s |" in text
    assert "1,200 test images" in text


def test_a_comparison_that_is_an_ablation_has_the_same_table(tmp_path):
    run = comparison()
    tests = {entry["method"]: entry for entry in run.pop("methods")}
    held = {"random_init": (0.5, 0.7), "new": (0.6, 0.6)}
    run["test"] = [{"variant": name} for name in tests]
    run["runs"] = [
        {
            "variant": name,
            "seed": seed,
            "test": entry["values"][str(seed)],
            "validation": held[name][seed],
            "seconds": entry["wall_seconds"],
            "test_examples": 1200,
        }
        for name, entry in tests.items()
        for seed in (0, 1)
    ]
    (tmp_path / "quickstart.json").write_text(json.dumps(run))
    text = figure_tables.quickstart(tmp_path)
    assert "| random initialisation | 60.0 ± 127.1% | 55.0 ± 63.5% |  | 2 | 7.2 s |" in text
    assert "| new | 60.0 ± 0.0% | 80.0 ± 127.1% | +25.0 ± 63.5 | 2 | 8.0 s |" in text
    for one in run["runs"]:
        one["validation"] = None
    (tmp_path / "quickstart.json").write_text(json.dumps(run))
    assert "| new | 80.0 ± 127.1% | +25.0 ± 63.5 | 2 | 8.0 s |" in figure_tables.quickstart(
        tmp_path
    )


def test_versions_of_jax_stand_below_each_other_in_order(tmp_path):
    for version in ("0.9", "0.10", "0.12"):
        run = {
            "model": "resnet20_cifar",
            "image_size": 32,
            "batch_size": 8,
            "forward_mflop": 10.0,
            "none_mflop": 30.0,
            "none_ratio": 3.0,
            "versions": {"jax": version},
            "device": {"platform": "cpu"},
            "command": "python -m benchmarks.flops",
        }
        (tmp_path / f"cpu-jax{version}").mkdir()
        (tmp_path / f"cpu-jax{version}" / "flops.json").write_text(json.dumps(run))
    text = figure_timings.flops(tmp_path)
    assert [text.index(f"JAX {version}") for version in ("0.9", "0.10", "0.12")] == sorted(
        text.index(f"JAX {version}") for version in ("0.9", "0.10", "0.12")
    )
    assert text.count("| step, nothing frozen | 30.0 | 3.0000 |") == 3


def test_steps_of_each_version_of_jax_stand_side_by_side(tmp_path):
    case = {"images_per_second_median": 240.72, "speed_interval": [1.0, 1.0]}
    faster = {"images_per_second_median": 345.3, "speed_interval": [1.301, 1.449]}
    run = {
        "cases": {
            "jax0.10": {"python": "3.11.7", "jax": "0.10.2", "huge_pages": False},
            "jax0.12-huge_pages": {"python": "3.13.0", "jax": "0.12.1", "huge_pages": True},
        },
        "rows": {
            "resnet20/full": {
                "batch_size": 128,
                "rounds": 8,
                "cases": {"jax0.10": case, "jax0.12-huge_pages": faster},
            }
        },
        "versions": {},
        "device": {"platform": "cpu"},
        "command": "python -m benchmarks.steps",
    }
    (tmp_path / "steps.json").write_text(json.dumps(run))
    lines = figure_timings.steps(tmp_path).splitlines()
    assert lines[0] == (
        "| full step | batch | Python 3.11.7, JAX 0.10.2 | Python 3.13.0, JAX 0.12.1, huge pages |"
    )
    assert lines[2] == "| ResNet-20, 32 px | 128 | 240.7 | 345.3 (1.30x to 1.45x) |"
    assert lines[4].startswith("Median of 8 processes.")


def test_gradients_of_convolutions_are_compared_round_by_round(tmp_path):
    def side(*milliseconds):
        return {
            "milliseconds_median": milliseconds[0],
            "cpu_milliseconds_median": 1.0,
            "milliseconds_of_rounds": milliseconds,
        }

    row = {"batch_size": 8, "sides": {"jax": side(50.0, 80.0), "jax_native": side(100.0, 160.0)}}
    run = {
        "rows": {"resnet50/full": row},
        "versions": {"jax": "0.12.0"},
        "device": {"platform": "cpu"},
        "command": "python -m benchmarks.throughput",
    }
    (tmp_path / "cpu-jax0.12").mkdir()
    (tmp_path / "cpu-jax0.12" / "convolution_gradients.json").write_text(json.dumps(run))
    text = figure_timings.convolution_gradients(tmp_path)
    line = "| ResNet-50, 224 px, full step | 8 | 100 | 50 | 1 | 1 | 2.00x (2.00x to 2.00x) |"
    assert line in text


def test_what_is_not_measured_is_said_with_its_command(tmp_path):
    assert figure_timings.throughput(tmp_path) == (
        "Not measured yet: `python -m benchmarks.all --only=throughput`."
    )


def test_every_table_is_shown_on_some_page():
    text = "".join(page.read_text() for page in figures.pages(figures.REPOSITORY))
    assert [name for name in figure_cells.TABLES if f"<!-- table: {name} -->" not in text] == []
