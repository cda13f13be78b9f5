import pytest
from flax import nnx

from data.features import Categorical, Features, Numeric, Sequence
from modules.sequential.bert4rec import BERT4Rec
from modules.sequential.gru import GRU4Rec
from modules.sequential.hstu import HSTU
from modules.sequential.idnp import IDNP
from modules.sequential.mqsa_ted import MQSATED
from modules.sequential.sasrec import SASRec


@pytest.mark.parametrize("config", [SASRec(), BERT4Rec(), MQSATED(), GRU4Rec(), HSTU(), IDNP()])
def test_a_history_that_is_no_sequence_is_refused_by_the_model_s_name(config):
    times = Sequence(name="history", of=Numeric(name="time"), length=4, role="user")
    name = {"MQSATED": "MQSA-TED"}.get(type(config).__name__, type(config).__name__)
    for feature, kind in (
        (Categorical(name="history", rows=10, role="user"), "categorical"),
        (times, "one of numbers"),
    ):
        with pytest.raises(ValueError, match=f"^{name} reads a sequence of ids, but 'history' is {kind}$"):
            config.make(Features(all=(feature,)), rngs=nnx.Rngs(0))
