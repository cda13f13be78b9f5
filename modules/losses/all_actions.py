"""Dense all-action loss: every state of a person against every later action of theirs (LEARN, AAAI 2025)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modules.losses.items import mean_where


def all_actions(
    states: Float[Array, "b h d"],
    targets: Float[Array, "b t d"],
    *,
    scale: Float[Array, ""] | float,
    known_states: Bool[Array, "b h"],
    known_targets: Bool[Array, "b t"],
    ids: Int[Array, "b t"] | None = None,
) -> Float[Array, ""]:
    """-log [exp s(u_ij, v_ik) / (exp s(u_ij, v_ik) + Σ_{z≠i} Σ_k' exp s(u_ij, v_zk'))], mean over i, j, k.

    s is `scale` times the product. A person's other targets are neither; with `ids`, nor is the item itself where
    somebody else took it.
    """
    rows, count = targets.shape[:2]
    flat = targets.reshape(rows * count, -1)
    logits = scale * jnp.einsum("bhd,nd->bhn", states, flat, preferred_element_type=jnp.float32)
    own = scale * jnp.einsum("bhd,bkd->bhk", states, targets, preferred_element_type=jnp.float32)
    others = jnp.arange(rows)[:, None] != jnp.repeat(jnp.arange(rows), count)[None]
    others &= known_targets.reshape(1, -1)
    allowed = jnp.broadcast_to(others[:, None], (rows, count, rows * count))
    if ids is not None:
        allowed = allowed & (ids[:, :, None] != ids.reshape(1, 1, -1))
    # The result does not depend on `top`, so no gradient need flow through it.
    top = jnp.max(jax.lax.stop_gradient(logits), axis=-1, keepdims=True)
    mass = jnp.einsum("bhn,bkn->bhk", jnp.exp(logits - top), allowed.astype(jnp.float32))
    loss = jnp.log(jnp.exp(own - top) + mass) - (own - top)
    return mean_where(loss, where=known_states[:, :, None] & known_targets[:, None, :])
