"""The same examples in every run, and nothing left in the working directory."""

import tempfile

from hypothesis import configuration, settings

configuration.set_hypothesis_home_dir(f"{tempfile.gettempdir()}/hypothesis")
settings.register_profile("tests", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("tests")
