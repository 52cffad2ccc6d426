"""Write docs/commands.md, the commands and their options, from the parsers themselves.

    python docs/commands.py

To be run when a command changes; a test compares.
"""

import argparse
from pathlib import Path

from tezip_h5 import cli
from tezip_h5.cli import legacy

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
# Commands

What `tezip-h5 COMMAND -h` says, for all of them; `tezip` is the command line of the original. Exit
codes: 0 done, 1 the input is wrong, 2 a file is damaged or the bound is broken, 130 interrupted or
terminated, 141 nobody reads the output any more. (Written by `docs/commands.py`.)
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for parser in (cli._parser(), legacy._parser()):
        parts += _sections(parser, "")
    return "\n".join(parts)


def _sections(parser: argparse.ArgumentParser, text: str) -> list[str]:
    """A section for a command that does something, or for each command within it."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if groups:
        texts = {choice.dest: choice.help for group in groups for choice in group._choices_actions}
        return [
            section
            for group in groups
            for name, inner in group.choices.items()
            for section in _sections(inner, texts.get(name) or "")
        ]
    actions = [action for action in parser._actions if action.dest != "help"]
    places = [_values(action) for action in actions if not action.option_strings]
    usage = " ".join([parser.prog, *places, "[options]" if len(actions) > len(places) else ""])
    about = parser.description or f"{text[:1].upper()}{text[1:]}."
    lines = [f"## {parser.prog}", "", _escaped(about), ""]
    lines += ["```text", usage.strip(), "```", ""]
    if actions:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| {_names(action)} | {_meaning(action)} |" for action in actions]
        lines.append("")
    return lines


def _values(action: argparse.Action) -> str:
    """The names of an argument's values, as a usage line has them."""
    if action.nargs == 0:
        return ""
    name = action.metavar or ("|".join(map(str, action.choices)) if action.choices else None)
    name = name or (action.dest.upper() if action.option_strings else action.dest)
    if isinstance(name, tuple):
        return " ".join(name)
    forms = {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "?": f"[{name}]"}
    if isinstance(action.nargs, int):
        return " ".join([name] * action.nargs)
    return forms.get(action.nargs, name)


def _names(action: argparse.Action) -> str:
    words = action.option_strings or [""]
    return _escaped(", ".join(f"`{f'{word} {_values(action)}'.strip()}`" for word in words))


def _meaning(action: argparse.Action) -> str:
    values = vars(action) | {"prog": "tezip-h5"}
    if action.dest == "threads":  # of the machine that writes the page
        values["default"] = "all processors"
    text = (action.help or "") % values
    if action.choices and action.default and "default" not in text:
        text = f"{text} (default: {action.default})".strip()
    return _escaped(text)


def _escaped(text: str) -> str:
    """Text that Markdown leaves as it is, within a table too."""
    text = " ".join(text.split())
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")


if __name__ == "__main__":
    PAGE.write_text(page())
