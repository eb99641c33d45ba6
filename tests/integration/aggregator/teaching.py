"""Teaching sites at an aggregator without a transport, and the events of their runs."""

from deerfield.exchange import announce
from deerfield.wire import codec
from pipelines.embedded.simulation import LocalLink
from tests.fakes import TeachingSite, adapter


def site(aggregator, run, name, seed=1, noise_multiplier=0.0):
    return TeachingSite(name, LocalLink(aggregator, name, run), adapter(seed), noise_multiplier)


def sites(aggregator, run, *names, noise_multiplier=0.0):
    return [site(aggregator, run, name, seed, noise_multiplier) for seed, name in enumerate(names)]


def finish(aggregator, spec, request="once"):
    """Runs `spec` to its last phase; nobody records it."""
    run = aggregator.runs.start(spec, request)
    noise = 4.0 if spec.privacy.unit == "record" else 0.0
    together = sites(aggregator, run, *spec.federation.sites, noise_multiplier=noise)
    while aggregator.runs.get(run).state == "RUNNING":
        for each in together:
            each.step()
        closing = aggregator.coordinator.due()
        aggregator.coordinator.publish(closing, closing.compute())
    return run


def announcement(site):
    """A good announcement of the site's next task, as a message."""
    assignment = site.link.next_task()
    return codec.encode_announcement(assignment.key, announce(site.update(assignment)))


def kinds(aggregator, run):
    return [event.kind for event in aggregator.runs.events(run, 0)]


def last(aggregator, run, kind):
    return [event.detail for event in aggregator.runs.events(run, 0) if event.kind == kind][-1]
