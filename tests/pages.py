"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a shell block, in words; a command may have several lines."""
        commands, open_lines = [], ""
        for line in self.text.splitlines():
            open_lines += f"{line}\n"
            try:
                words = shlex.split(open_lines.replace("\\\n", ""), comments=True)
            except ValueError:  # a quote is open
                continue
            if not line.endswith("\\"):
                commands += [words] if words else []
                open_lines = ""
        assert not open_lines, "a command does not end"
        return commands


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match["info"].split(" ")[0],
            title=title[1] if (title := TITLE.search(match["info"])) else None,
            text=textwrap.dedent(match["text"]),
        )
        for match in FENCE.finditer(text)
    ]
