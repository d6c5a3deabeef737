"""The commands: each parses flags, reads a config and calls the library."""
