"""Draws collapsed stacks, as `py-spy record -f raw` writes them, as a flame graph in SVG.

`python -m services.bench.flame_graph FROM TITLE < stacks > graph.svg` draws what runs above the
function FROM; other threads and the wait of the event loop are left out.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

_WIDTH, _ROW, _TOP = 1200.0, 15, 40
_LEAST_SHARE = 0.004  # of the whole; narrower frames are left out
_LETTER_WIDTH, _LEAST_LETTERS = 6.2, 4
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]+):\d+\)")
# Prefixes of files by color: the part that a frame belongs to.
_COLORS = {
    "#e8743b": ("services/", "shared/"),
    "#5899da": ("vllm/", "torch/", "transformers/", "tokenizers/"),
    "#f2b134": ("grpc/", "google/"),
    "#82b366": ("uvicorn/", "starlette/", "fastapi/", "anyio/", "pydantic", "prometheus_"),
}
_LEGEND = {
    "#e8743b": "slos-serve",
    "#5899da": "vLLM",
    "#f2b134": "gRPC",
    "#82b366": "web framework, metrics page",
    "#c8c8c8": "Python",
}
_OTHER = "#c8c8c8"


@dataclass(slots=True)
class Frame:
    """A function with what it called. `samples` includes those of its callees."""

    function: str
    file: str
    samples: int = 0
    callees: dict[tuple[str, str], "Frame"] = field(default_factory=dict)

    @property
    def color(self) -> str:
        fits = (color for color, starts in _COLORS.items() if self.file.startswith(starts))
        return next(fits, _OTHER)

    @property
    def depth(self) -> int:
        return 1 + max((one.depth for one in self.callees.values()), default=0)


def read_stacks(lines: Iterable[str], start: str) -> Frame:
    """The tree above the function `start`. Stacks that end in it, or lack it, are left out."""
    root = Frame(function="all", file="")
    for line in lines:
        words, _, count = line.rpartition(" ")
        stack = [_parsed(word) for word in words.split(";")]
        at = next((at for at, one in enumerate(stack) if one[0] == start), len(stack))
        above = stack[at + 1 :]
        if above:
            _add(root, above, int(count))
    return root


def _parsed(word: str) -> tuple[str, str]:
    found = _FRAME.fullmatch(word)
    return (found["function"], found["file"]) if found else (word, "")


def _add(root: Frame, stack: Iterable[tuple[str, str]], samples: int) -> None:
    root.samples += samples
    frame = root
    for key in stack:
        frame = frame.callees.setdefault(key, Frame(function=key[0], file=key[1]))
        frame.samples += samples


def pruned(frame: Frame, least_samples: float) -> Frame:
    """The tree without frames of fewer samples."""
    kept = {
        key: pruned(one, least_samples)
        for key, one in frame.callees.items()
        if one.samples >= least_samples
    }
    return Frame(function=frame.function, file=frame.file, samples=frame.samples, callees=kept)


def draw(root: Frame, title: str) -> str:
    """The graph as an SVG document, callers above their callees."""
    root = pruned(root, _LEAST_SHARE * root.samples)
    height = _TOP + _ROW * root.depth + 10
    size = f'viewBox="0 0 {_WIDTH:g} {height}" font-family="monospace" font-size="10"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f'<rect width="100%" height="100%" fill="white"/><text x="4" y="14">{escape(title)}</text>',
        *_legend(),
        *_boxes(root, 0.0, 0, root.samples),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> Iterator[str]:
    x = 4.0
    for color, name in _LEGEND.items():
        yield f'<rect x="{x:g}" y="21" width="10" height="10" fill="{color}"/>'
        yield f'<text x="{x + 14:g}" y="30">{name}</text>'
        x += 30 + _LETTER_WIDTH * len(name)


def _boxes(frame: Frame, x: float, row: int, total: int) -> Iterator[str]:
    width, y = _WIDTH * frame.samples / total, _TOP + _ROW * row
    label = f"{frame.function} {frame.file} {100 * frame.samples / total:.1f} %"
    yield (
        f'<g><title>{escape(label)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW - 1}" fill="{frame.color}"/>{_text(frame, x, y, width)}</g>'
    )
    for one in sorted(frame.callees.values(), key=lambda callee: -callee.samples):
        yield from _boxes(one, x, row + 1, total)
        x += _WIDTH * one.samples / total


def _text(frame: Frame, x: float, y: float, width: float) -> str:
    letters = int(width / _LETTER_WIDTH)
    if letters < _LEAST_LETTERS:
        return ""
    return f'<text x="{x + 2:.1f}" y="{y + 10:g}">{escape(frame.function[:letters])}</text>'


def main() -> None:
    start, title = sys.argv[1:]
    sys.stdout.write(draw(read_stacks(sys.stdin, start), title))


if __name__ == "__main__":
    main()
