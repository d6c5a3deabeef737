"""Whole runs, from a config to a finished folder; with `config`, what reads configs."""
