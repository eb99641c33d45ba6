"""The whole report, in the order in which a reader asks: what, how, at what cost, how good, and what follows."""

from pipelines.pages.page import document, section
from pipelines.report_page.accuracy import accuracy
from pipelines.report_page.data import data
from pipelines.report_page.evaluation import evaluation
from pipelines.report_page.found import Found
from pipelines.report_page.privacy import privacy
from pipelines.report_page.ran import head, ran
from pipelines.report_page.reproduce import reproduce
from pipelines.report_page.rounds import rounds
from pipelines.report_page.spread import spread
from pipelines.report_page.traffic import traffic
from pipelines.report_page.verdict import verdict

SECTIONS = (
    ("ran", "What ran", ran),
    ("data", "Training data", data),
    ("rounds", "Rounds", rounds),
    ("privacy", "Privacy budget", privacy),
    ("accuracy", "Accuracy over rounds", accuracy),
    ("evaluation", "Evaluation", evaluation),
    ("spread", "Differences between sites", spread),
    ("traffic", "Bytes and deviation", traffic),
    ("verdict", "Verdict", verdict),
    ("reproduce", "How to reproduce this", reproduce),
)
STYLE = """
.facts { grid-template-columns: repeat(auto-fit, minmax(9.6rem, 1fr)); } .facts b { font-size: 1.1rem; }
header { margin-bottom: 1rem; } section { margin-top: 2.4rem; } h2 { border-bottom: 1px solid var(--line); }
figure { margin: 1rem 0; break-inside: avoid; } figcaption { color: var(--soft); font-size: .85rem; }
.verdict p { margin: .15rem 0; } .gap { color: #8a2b1d; font-style: italic; }
main table { width: auto; min-width: 50%; margin: .8rem 0; } main th, main td { padding-right: 1.3rem; }
main .pairs { width: 100%; } .pairs th { width: 12rem; border-bottom: 1px solid var(--line); }
nav { font-size: .86rem; margin: 1rem 0; } nav a { color: var(--blue); margin-right: .9rem; }
td, h1, p, li, figcaption { overflow-wrap: anywhere; } th { overflow-wrap: break-word; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
th.n, td.t { white-space: normal; } td.t { min-width: 5rem; } th.n { vertical-align: bottom; }
@page { size: A4; margin: 16mm 15mm; }
@media print {
  body { font-size: 10pt; } nav { display: none; } code { font-size: .7rem; } table { font-size: .8rem; }
  section { break-inside: avoid; margin-top: 1.4rem; } #ran { break-inside: auto; } #reproduce { break-before: page; }
  main th, main td { padding: .16rem .7rem .16rem 0; } .facts b { font-size: 1rem; }
  h2, h3 { break-after: avoid; } .verdict, .facts div { break-inside: avoid; } thead { display: table-header-group; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def render(found: Found) -> str:
    """The report as HTML: the same `found` gives the same bytes."""
    links = "".join(f'<a href="#{name}">{title}</a> ' for name, title, _ in SECTIONS)
    parts = (section(name, title, told(found)) for name, title, told in SECTIONS)
    contents = f'<nav aria-label="Contents">{links}</nav>'
    return document(f"Report of {found.name}", (head(found), contents, "<main>", *parts, "</main>"), STYLE)
