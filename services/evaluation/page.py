"""One HTML page that contains every table and figure and loads nothing from elsewhere."""

import html
import re
from collections.abc import Iterator, Mapping

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#222}
body{max-width:76rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-size:13px;display:block;overflow-x:auto}
td,th{border:1px solid #ccc;padding:.25rem .5rem;text-align:left}th{background:#f3f3f3}
svg{max-width:100%;height:auto}code{background:#f3f3f3;padding:0 .2rem}h2{margin-top:2.5rem}"""
_DRAWN_IN = {
    "Capacity": ("capacity", "attainment"),
    "Ablations": ("ablations",),
    "Bursts": ("bursts",),
    "Scaling": ("scaling",),
    "Overload": ("overload",),
    "How it was made": ("batches",),
}


def page(title: str, markdown: str, drawn: Mapping[str, str]) -> str:
    """`markdown`: headings, tables, paragraphs, as `report` writes them; `drawn`: SVG by name."""
    body = "\n".join(_blocks(markdown, drawn))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _blocks(markdown: str, drawn: Mapping[str, str]) -> Iterator[str]:
    for block in markdown.strip().split("\n\n"):
        if block.startswith("## "):
            name = block.removeprefix("## ")
            yield f"<h2>{_inline(name)}</h2>"
            for figure in _DRAWN_IN.get(name, ()):
                yield drawn.get(figure, "")
        elif block.startswith("|"):
            yield _table(block.splitlines())
        else:
            yield f"<p>{_inline(block)}</p>"


def _table(lines: list[str]) -> str:
    head, _, *body = [_cells(line) for line in lines]
    rows = "\n".join(f"<tr>{''.join(f'<td>{_inline(c)}</td>' for c in row)}</tr>" for row in body)
    return f"<table>\n<tr>{''.join(f'<th>{_inline(c)}</th>' for c in head)}</tr>\n{rows}\n</table>"


def _cells(line: str) -> list[str]:
    inside = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inside)]


def _inline(text: str) -> str:
    escaped = html.escape(text)
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escaped)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", bold)
