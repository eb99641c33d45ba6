"""The whole report, in the order in which a reader asks: what, how it went, at what cost, how good, and what follows."""

from pipelines.page import document
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

SECTIONS = (ran, data, rounds, privacy, accuracy, evaluation, spread, traffic, verdict, reproduce)
STYLE = """
.facts { grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); } .facts b { font-size: 1.15rem; }
header { margin-bottom: 1rem; } section { margin-top: 2.4rem; } h2 { border-bottom: 1px solid var(--line); }
figure { margin: 1rem 0; break-inside: avoid; } figcaption { color: var(--soft); font-size: .85rem; }
.verdict p { margin: .15rem 0; } .gap { color: #8a2b1d; font-style: italic; }
.pairs th { width: 12rem; border-bottom: 1px solid var(--line); padding-right: 1rem; }
td, th { overflow-wrap: anywhere; } td.t { white-space: normal; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@page { size: A4; margin: 16mm 15mm; }
@media print {
  body { font-size: 10pt; } section { break-inside: avoid; margin-top: 1.4rem; } #reproduce { break-before: page; }
  h2, h3, .lead { break-after: avoid; } th, td { padding-top: .18rem; padding-bottom: .18rem; } .verdict, .facts div { break-inside: avoid; } thead { display: table-header-group; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def render(found: Found) -> str:
    """The report as HTML: the same `found` gives the same bytes."""
    parts = [head(found), "<main>", *(part(found) for part in SECTIONS), "</main>"]
    return document(f"Report of {found.name}", parts, STYLE)
