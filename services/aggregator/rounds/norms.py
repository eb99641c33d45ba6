"""How long an update of a run may be, as far as that follows from public terms.

Under unit site a site clips its whole update to `clip`, so that a longer one was not made by the run's mechanism. Under
record and patient no useful bound follows: a step is a sum over the units that were drawn, divided by q n_low, and
neither how many were drawn nor n_low, which a hospital's policy declares, is known here. The only public bound on the
units, 1 / (10 delta), is a hundred thousand times what an honest update has. A consortium that knows its runs names a
limit itself, in `federation.norm_limit`.
"""

from math import inf, sqrt

from deerfield.manifest import FLOAT32_BYTES, Manifest
from deerfield.runspec import RunSpec

ROUNDING = 1e-6  # relative: a clipped update is rounded to float32, by 6e-8 of each entry
SMALLEST = 2.0**-149  # of float32: what an entry near zero may be rounded by


def norm_limit(spec: RunSpec, manifest: Manifest) -> float:
    """The joint L2 norm that no honest update exceeds; infinite where none follows and none is named."""
    named = inf if spec.federation.norm_limit is None else spec.federation.norm_limit
    if spec.privacy.unit != "site" or spec.privacy.clip is None:
        return named
    clipped = spec.privacy.clip * (1 + ROUNDING) + SMALLEST * sqrt(manifest.size_bytes / FLOAT32_BYTES)
    return min(named, clipped)
