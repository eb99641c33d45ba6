"""What an account may do: the Roles that are bound to it."""

from tests.cluster.api import Call
from tests.cluster.release import Object
from tests.cluster.store import Store


def allows(store: Store, call: Call) -> bool:
    """Whether a Role that is bound to the account in the namespace has what is asked."""
    space, account = call.account
    subject = {"kind": "ServiceAccount", "namespace": space, "name": account}
    for binding in store.all("RoleBinding", call.namespace):
        subjects = [{"namespace": call.namespace, **each} for each in binding.get("subjects") or ()]
        role = store.get("Role", call.namespace, binding["roleRef"]["name"])
        bound = role is not None and any(subject.items() <= each.items() for each in subjects)
        if bound and any(_grants(rule, call) for rule in role["rules"]):
            return True
    return False


def _grants(rule: Object, call: Call) -> bool:
    named = rule.get("resourceNames")
    return (
        call.group in rule["apiGroups"]
        and call.resource in rule["resources"]
        and call.verb in rule["verbs"]
        and (not named or call.name in named)
    )
