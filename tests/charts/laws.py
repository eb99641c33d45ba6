"""The laws that hold for all objects of a release, by name; each says in a sentence what breaks it."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from tests.charts import hooks, mending, naming, network, programs, restricted, secrecy, wiring
from tests.charts.pods import pods
from tests.charts.rendering import Object

Law = Callable[[Iterable[Object]], Iterator[str]]


def _restricted(objects: Iterable[Object]) -> Iterator[str]:
    for pod in pods(objects):
        yield from restricted.offences(pod)
        yield from restricted.read_only(pod)


LAWS: Mapping[str, Law] = {
    "selectors_match_labels_and_no_two_workloads_share_them": wiring.selectors,
    "services_name_ports_of_their_pods_under_the_same_number": wiring.services,
    "probes_name_ports_of_their_container": wiring.probes,
    "what_serves_says_when_it_is_ready": wiring.probed,
    "every_pod_is_restricted_and_its_root_read_only": _restricted,
    "no_secret_stands_in_an_object": secrecy.secrets,
    "tokens_are_where_there_is_a_role_and_nowhere_else": secrecy.tokens,
    "images_have_a_tag_that_is_not_latest": secrecy.images,
    "every_pod_is_behind_policies_in_both_directions": network.isolated,
    "names_fit": naming.names,
    "labels_are_the_recommended_ones": naming.labels,
    "nothing_is_named_twice": wiring.twice,
    "every_mount_has_its_volume": wiring.mounts,
    "no_secret_is_mounted_by_sub_path": wiring.sub_paths,
    "hooks_come_in_order_and_leave_nothing": hooks.hooks,
    "an_upgrade_replaces_a_pod_that_is_not_ready": mending.parallel,
    "a_pod_says_which_secret_is_missing": mending.said,
    "probes_have_time_to_start_a_program": mending.patient,
    "programs_know_their_flags_and_variables": programs.unknown,
    "variables_of_others_are_known_ones": programs.strangers,
}
