"""One module per experiment: a config as data, its command and its result in the header."""
