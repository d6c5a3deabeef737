"""The fields as people read them: the list of `--list_fields`, and the page docs/config.md."""

from tl_jax.config.field import Field
from tl_jax.config.table import FIELDS, SECTIONS

_INTRODUCTION = """# Every field of a config

Generated from the tables in `tl_jax/config` by `python -m tl_jax.config > docs/config.md`.

Set a field on the command line (`--config.optim.learning_rate=0.01`), in a config file
(`config.optim.learning_rate = 0.01`), or in Python (`tl_jax.default_config(optim__learning_rate=0.01)`).
A value that is not allowed is refused before anything is compiled. Fields marked with * cannot change a number
of the result: two values of them are the same run.
"""


def list_fields() -> str:
    """Returns all fields as text: a line each with its default, then what it is and what it may hold."""
    lines = []
    for section in ("", *SECTIONS):
        if section:
            lines += ["", f"{section}: {SECTIONS[section]}"]
        for field in _fields_of(section):
            allowed = f" ({_allowed(field)})" if _allowed(field) else ""
            lines += [f"  {field.name}={_shown(field)}", f"      {field.help}{allowed}"]
    return "\n".join(lines)


def page() -> str:
    """Returns docs/config.md."""
    parts = [_INTRODUCTION]
    for section in ("", *SECTIONS):
        if section:
            parts.append(f"## {section}\n\n{SECTIONS[section]}\n")
        rows = ["| field | default | allowed | what it is |", "| --- | --- | --- | --- |"]
        for field in _fields_of(section):
            mark = "" if field.changes_numbers else " *"
            cells = (f"`{field.name}`{mark}", f"`{_shown(field)}`", _allowed(field), field.help)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _fields_of(section: str) -> list[Field]:
    return [field for field in FIELDS.values() if field.section == section]


def _shown(field: Field) -> str:
    return repr(field.default)


def _allowed(field: Field) -> str:
    """Returns which values a field takes; not the largest integer, which is no choice of anyone."""
    if field.within.endswith("2147483647]"):
        least = field.within[1:].partition(",")[0]
        return f"{least} or more" if least != "0" else ""
    return field.allowed
