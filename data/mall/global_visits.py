"""Every request of the mall by what its person had done in all products before: queries of a global representation."""

import chz
import numpy as np

from data.features import FIRST, Group
from data.mall.behaviours import PRODUCT_OF
from data.mall.build import build
from data.mall.global_users import MallGlobalUsers, token_vectors
from data.mall.guests import held_out
from data.mall.with_vectors import WithVectors
from data.sources import InMemory, SourceConfig

SHOP = 0


@chz.chz
class MallGlobalVisits(SourceConfig):
    """One row per request, by the number `visit`, without labels. Of guests, what they did in the shop is not known;
    of nobody, the search that the request answers."""

    people: MallGlobalUsers = chz.field(default_factory=MallGlobalUsers, doc="whose behaviours and dictionary")

    def make(self) -> WithVectors:
        mall, found = self.people.mall, self.people.dictionary()
        log, ids = self.people.log(found)
        known = np.flatnonzero(~held_out(mall)[log.events.user] | (np.array(PRODUCT_OF)[log.kind] != SHOP))
        requests = build(mall).log.requests
        # A request is searched for one second before it.
        user, now = requests["user"], requests["time"] - 1
        columns, features = self.people.rows(log.rows(known), ids[known], user=user, now=now, rows=found.rows)
        columns["visit"] = FIRST + np.arange(len(user))
        source = InMemory(columns, features=features.plus(Group(name="visit"), Group(name="user")))
        return WithVectors(source, vectors=token_vectors(mall, found), of={"behaviour": "behaviour_text"})
