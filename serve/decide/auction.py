"""Generalised second price: ranked by expected revenue, each winner pays per click the least that keeps its place.

Edelman, Ostrovsky, Schwarz, "Internet Advertising and the Generalized Second-Price Auction", AER 2007; with click rates
as in Varian, "Position auctions", IJIO 2007: eCPM = bid x pCTR orders, the price is the next eCPM over the own pCTR.
"""

from dataclasses import dataclass

import chz
import numpy as np

from data.errors import UserError


@chz.chz
class Auction:
    """Places are sold by the click."""

    bid: str = chz.field(
        default="bid", doc="column of the feature store with what a click is worth; null: not for sale"
    )
    reserve: float = chz.field(default=0.0, doc="least price of a click; lower bids are out")

    @chz.validate
    def _reserve_is_a_price(self):
        if not 0 <= self.reserve < float("inf"):
            raise ValueError(f"a reserve of {self.reserve} is no price; give 0 or more")


@dataclass(frozen=True)
class Sold:
    """`order`: places of those that bid enough, best first; `price` of a click for each of them."""

    order: np.ndarray
    price: np.ndarray


def ecpm(bids: np.ndarray, *, rates: np.ndarray) -> np.ndarray:
    """Expected revenue of a view."""
    return checked_bids(bids) * checked_rates(rates)


def auction(bids: np.ndarray, *, rates: np.ndarray, reserve: float = 0.0) -> Sold:
    """All bidders in order with their prices; equal ones keep the order in which they came.

    The price lies from the reserve to the bid, and a higher bid never gets a lower place.
    """
    value = ecpm(bids, rates=rates)
    bids = np.asarray(bids, np.float64)
    enough = np.flatnonzero(bids >= reserve)
    order = enough[np.argsort(-value[enough], kind="stable")]
    return Sold(order, prices(order, bids=bids, rates=rates, reserve=reserve))


def prices(order: np.ndarray, *, bids: np.ndarray, rates: np.ndarray, reserve: float, after: float = 0.0) -> np.ndarray:
    """Price of a click in each place; `after` is the best expected revenue that got no place."""
    bids, rates = np.asarray(bids, np.float64)[order], np.asarray(rates, np.float64)[order]
    below = np.append((bids * rates)[1:], after)[: len(order)]
    least = np.divide(below, rates, out=np.zeros(len(order)), where=rates > 0)
    return np.minimum(np.maximum(least, reserve), bids)


def checked_bids(bids: np.ndarray) -> np.ndarray:
    bids = np.asarray(bids, np.float64)
    if len(wrong := np.flatnonzero(fault_of_bids(bids) != "")):
        raise UserError(f"bid {bids[wrong[0]]} of candidate {wrong[0]} is no price; a bid is 0 or more and finite")
    return bids


def checked_rates(rates: np.ndarray) -> np.ndarray:
    rates = np.asarray(rates, np.float64)
    if len(wrong := np.flatnonzero(~((rates >= 0) & (rates <= 1)))):
        raise UserError(
            f"click rate {rates[wrong[0]]} of candidate {wrong[0]} is no probability; "
            "an auction needs a tower whose score is one, calibrated"
        )
    return rates


def fault_of_bids(bids: np.ndarray) -> np.ndarray:
    """What is wrong with each bid, "" where nothing is."""
    fault = np.full(len(bids), "", object)
    fault[~np.isfinite(bids)] = "its bid is not finite"
    fault[bids < 0] = "its bid is negative"
    return fault
