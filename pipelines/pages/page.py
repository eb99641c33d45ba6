"""Parts of an HTML page that needs no other file, address or script; all text that they are given is escaped."""

import re
from collections.abc import Iterable, Mapping
from html import escape

NOTHING_ELSE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # no script runs, nothing is fetched
DIGEST = re.compile("[0-9a-f]{64}")

STYLE = """
:root { color-scheme: light; --ink: #1d232b; --soft: #55606d; --line: #dfe4ea; --blue: #1f5fa8; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: var(--ink); background: #fff;
  margin: 0 auto; max-width: 60rem; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; } p { margin: .4rem 0; } .soft { color: var(--soft); }
.verdict { border-left: 5px solid #1b7f4b; background: #eef8f2; padding: .7rem 1rem; margin: 1.2rem 0; }
.verdict.bad { border-color: #b3261e; background: #fcefee; }
.verdict.open { border-color: #b07d00; background: #fdf6e3; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.facts div { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; }
.facts b { display: block; font-size: 1.25rem; font-weight: 600; }
.facts span { color: var(--soft); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
th, td { padding: .28rem .6rem .28rem 0; vertical-align: top; } td { border-bottom: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } .t { white-space: nowrap; }
code { font: .82rem/1.45 ui-monospace, Consolas, Menlo, monospace; overflow-wrap: anywhere; }
.h code { white-space: nowrap; } pre { background: #f6f8fa; border-radius: 6px; padding: .8rem 1rem; overflow-x: auto; }
svg { width: 100%; height: auto; } li { margin: .25rem 0; } details > summary { cursor: pointer; color: var(--blue); }
@media print { body { max-width: none; padding: 0; } tr, svg { break-inside: avoid; } }
"""


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page of `parts`, which are HTML; `style` is CSS beside the common one."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{NOTHING_ELSE}">'
        f"<style>{STYLE}{style}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def facts(each: Mapping[str, str]) -> str:
    """Figures in boxes, by what they are."""
    return (
        "<div class=facts>"
        + "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in each.items())
        + "</div>"
    )


def table(names: Iterable[str], rows: Iterable[Iterable[str]], kinds: str) -> str:
    """A table; `kinds` says of each column whether it is a number, a short text, a wide text or a hash."""
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True)
    )

    def cell(text: str, kind: str) -> str:
        inside = f"<code>{escape(text)}</code>" if kind == "h" else escape(text)
        return f'<td class="{kind}">{inside}</td>'

    body = "".join(
        "<tr>" + "".join(cell(text, kind) for text, kind in zip(row, kinds, strict=True)) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def pairs(rows: Mapping[str, str]) -> str:
    """Names and what they stand for; what is empty is left out."""

    def cell(value: str) -> str:
        return f"<code>{escape(value)}</code>" if DIGEST.fullmatch(value) else escape(value)

    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{cell(value)}</td></tr>\n' for name, value in rows.items() if value
    )
    return f"<table class=pairs><tbody>\n{body}</tbody></table>"


def section(name: str, title: str, body: str) -> str:
    """A part of the page under a heading that can be linked to as #name."""
    return f'<section id="{name}"><h2>{escape(title)}</h2>\n{body}\n</section>'


def joined(*parts: str) -> str:
    """Parts under one another; those that are empty are left out."""
    return "\n".join(filter(None, parts))


def box(kind: str, word: str, *parts: str) -> str:
    """What nobody should overlook: a word, then parts; `kind` is verdict, verdict bad or verdict open."""
    return f'<div class="{kind}"><b>{escape(word)}</b> {joined(*parts)}</div>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is a class of the style."""
    return f"<p class={kind}>{escape(text)}</p>" if kind else f"<p>{escape(text)}</p>"


def figure(svg: str, caption: str) -> str:
    """A picture, which is SVG, over its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
