"""A site process without a model that kills itself where it is told to.

`python -m tests.integration.killed_site ADDRESS RUN STATE POINT`, where POINT is one of the ledger's, the vault's, or
`train`, `send` and `sent`; "never" lets it live.
"""

import sys
from pathlib import Path

from deerfield.errors import RunEnded
from deerfield.wire.channel import connect
from services.client.custody.custody import Custody
from services.client.site import Site
from tests.integration.mortal import Mortal, killing
from tests.unit.client.sites import Bench, policy


def main() -> None:
    address, run, state, point = sys.argv[1:]
    reach = killing(point)

    class Dying(Bench):
        def fit(self, **asked):
            reach("train")
            return super().fit(**asked)

    rules = policy(population={"epsilon": 50.0})
    with (
        Custody("north", rules, Path(state), on_durable=reach) as custody,
        connect(address, role="site", site="north") as channel,
    ):
        link = Mortal(channel, run=run)
        link.reach = reach
        link.hello()
        site = Site(name="north", link=link, account=custody.account, build=lambda _: Dying([]), beats=False)
        try:
            while True:
                site.step()
        except RunEnded:
            return


if __name__ == "__main__":
    main()
