"""Fields by name."""

import ml_collections

from configs import base
from experiments import config_fields


def test_a_config_of_an_older_version_is_completed():
    fields = base.get_config().to_dict()
    fields["seed"] = 7
    del fields["data"]["workers"], fields["report"]
    config = config_fields.completed(fields, base.get_config())
    assert config_fields.field_names(config) == config_fields.field_names(base.get_config())
    assert (config.seed, config.data.workers, config.report.mistakes) == (7, 0, 25)
    assert isinstance(config, ml_collections.ConfigDict)
