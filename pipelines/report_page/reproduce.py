"""How somebody else runs the same again, and looks up what this page does not hold."""

from html import escape
from shlex import quote

from deerfield.runspec import RunSpec
from pipelines.pages.page import joined, paragraph
from pipelines.report_page.found import Found
from pipelines.runs.run_start import text

NOISE = (
    "The noise of differential privacy is secret and drawn anew each time: another run with this file gives another "
    "adapter of the same quality, not the same bits."
)
EXACT = (
    "With unit none nothing is drawn but from the public seed: the same file over the same data, with every site "
    "answering, gives the same bits, sha256 included."
)


def reproduce(found: Found) -> str:
    """The section."""
    if found.spec is None:
        return joined(paragraph("Without its run file nobody can repeat the run.", "gap"))
    spec = found.spec
    return joined(
        paragraph(EXACT if spec.privacy.unit == "none" else NOISE),
        f"<pre><code>{escape(_commands(found, spec))}</code></pre>",
        "<h3>The run file</h3>",
        paragraph("Without the tensor shapes, which the base model says: give --base, the folder of the base model."),
        f"<pre><code>{escape(text(spec.model_copy(update={'adapter': {}, 'convolutions': ()})))}</code></pre>",
    )


def _commands(found: Found, spec: RunSpec) -> str:
    run = quote(found.name)
    lines = [
        "# once more, over the sites of the consortium; the file is below",
        "deerfield runs start run.yaml --base FOLDER --aggregator HOST:PORT",
        "# once more on one machine, from the folder that deerfield run has left",
        "deerfield run FOLDER/run.json",
        "# every event of this run, and this page",
        f"deerfield runs watch {run} --aggregator HOST:PORT --json",
        f"deerfield report {run} --aggregator HOST:PORT --out report.html",
    ]
    registered = found.result.registered if found.result else {}
    if registered:
        model = quote(f"models:/{registered.get('name', '')}/{registered.get('version', '')}")
        base = quote(spec.model.base)
        lines += ["# the model on other data", f"deerfield evaluate {model} DATA --base {base}"]
    lines += ["# what a site has spent, at the site", "deerfield ledger verify STATE"]
    return "\n".join(lines)
