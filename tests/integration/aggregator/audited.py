"""What stands in an aggregator's audit log."""

from services.aggregator.auditing.audit_chain import Walk
from services.aggregator.auditing.trail import entries


def logged(store, kind=None):
    with store.edge() as edge:
        found = list(entries(edge._connection))
    return [entry for entry in found if kind in (None, entry.kind)]


def whats(store, kind="edge"):
    return [entry.what for entry in logged(store, kind)]


def findings(store, **options):
    return list(Walk(**options).findings(logged(store)))
