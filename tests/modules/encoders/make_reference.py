"""Writes reference/*.npz: what the reference libraries answer, with tiny random weights that follow from their names.

In an environment with torch, transformers and timm, which the project itself never imports:

    python tests/modules/encoders/make_reference.py [minilm FOLDER]

With the folder of all-MiniLM-L6-v2 it writes what those real weights answer, and nothing else.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from safetensors import safe_open
from timm.models.efficientnet import _gen_efficientnet_lite
from weights import tensor  # run as a script, from this folder

FOLDER = Path(__file__).parent / "reference"
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 43,
    "max_position_embeddings": 12,
}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "image_size": 24,
    "patch_size": 8,
}
LENGTHS = np.array([12, 7, 3])


def main() -> None:
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    ids = np.where(np.arange(12) < LENGTHS[:, None], rng.randint(3, 42, (3, 12)), 0)
    mask = torch.tensor(np.arange(12) < LENGTHS[:, None]).long()
    half = torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1

    bert = filled(hf.BertModel(hf.BertConfig(**TEXT)))
    out = bert(torch.tensor(ids), attention_mask=mask)
    write("bert", bert, ids=ids, states=out.last_hidden_state, pooled=out.pooler_output)

    roberta = filled(
        hf.RobertaModel(
            hf.RobertaConfig(
                **{**TEXT, "max_position_embeddings": 14}, pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5
            ),
            add_pooling_layer=False,
        )
    )
    padded = torch.tensor(np.where(mask, ids, 1))
    write("roberta", roberta, ids=ids, states=roberta(padded, attention_mask=mask).last_hidden_state)

    vit = filled(hf.ViTModel(hf.ViTConfig(**VISION)))
    write("vit", vit, images=images, pooled=vit(half).last_hidden_state[:, 0])

    ends = np.where(np.arange(12) == LENGTHS[:, None] - 1, 42, ids)
    clip = filled(
        hf.CLIPModel(
            hf.CLIPConfig(
                text_config={**TEXT, "eos_token_id": 42, "bos_token_id": 1, "pad_token_id": 0},
                vision_config=VISION,
                projection_dim=8,
            )
        )
    )
    processor = hf.CLIPImageProcessor()
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (processor.image_mean, processor.image_std))
    pixels = (torch.tensor(images).permute(0, 3, 1, 2) / 255 - mean) / std
    out = clip(input_ids=torch.tensor(ends), pixel_values=pixels, attention_mask=mask)
    write("clip", clip, images=images, ids=ends, query=out.text_embeds, item=out.image_embeds)

    siglip = filled(hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=VISION)))
    out = siglip(input_ids=torch.tensor(np.where(mask, ids, 1)), pixel_values=half)
    write("siglip", siglip, images=images, ids=ids, query=out.text_embeds, item=out.image_embeds)

    lite = _gen_efficientnet_lite(
        "tf_efficientnet_lite0", channel_multiplier=0.5, depth_multiplier=1.1, bn_eps=1e-3, pad_type="same"
    )
    lite = filled(lite)
    large = rng.randint(0, 256, (2, 64, 48, 3)).astype(np.uint8)
    pixels = torch.tensor(large).permute(0, 3, 1, 2) / 127.5 - 1
    pooled = lite.forward_head(lite.forward_features(pixels), pre_logits=True)
    write("efficientnet_lite", lite, images=large, pooled=pooled)


def minilm(folder: str) -> None:
    """Titles of a shop, by the tokenizer and the weights of the folder, mean over the tokens."""
    titles = ["Nike Air Max 90, white", "red summer dress with flowers", "iPhone 15 case (leather)", ""]
    tokenizer, model = hf.AutoTokenizer.from_pretrained(folder), hf.BertModel.from_pretrained(folder).eval()
    batch = tokenizer(titles, padding=True, return_tensors="pt")
    states, mask = model(**batch).last_hidden_state, batch["attention_mask"]
    pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    ids, lengths = batch["input_ids"].numpy(), mask.sum(1).numpy()
    np.savez_compressed(FOLDER / "minilm.npz", titles=np.array(titles), ids=ids, lengths=lengths, pooled=pooled.numpy())


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """The model with weights by the names that its file has, which are not always those of its modules."""
    state = model.state_dict()
    if isinstance(model, hf.PreTrainedModel):
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            shapes = stored(folder)
            model.stored_shapes = shapes
            values = {name: torch.tensor(tensor(name, shape=shape)) for name, shape in shapes.items()}
            from safetensors.torch import save_file

            save_file(values, f"{folder}/model.safetensors", metadata={"format": "pt"})
            loaded = type(model).from_pretrained(folder, **extra(model))
            loaded.stored_shapes = shapes
            return loaded.eval()
    model.stored_shapes = {name: tuple(value.shape) for name, value in state.items()}
    model.load_state_dict({n: torch.tensor(tensor(n, shape=s)) for n, s in model.stored_shapes.items()})
    return model.eval()


def extra(model: torch.nn.Module) -> dict:
    return {"add_pooling_layer": False} if isinstance(model, hf.RobertaModel) else {}


def stored(folder: str) -> dict[str, tuple[int, ...]]:
    with safe_open(f"{folder}/model.safetensors", framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def write(name: str, model: torch.nn.Module, **arrays) -> None:
    shapes = model.stored_shapes
    FOLDER.mkdir(exist_ok=True)
    held = {key: value.detach().numpy() if torch.is_tensor(value) else value for key, value in arrays.items()}
    listed = np.array([f"{key} {' '.join(map(str, shape))}" for key, shape in sorted(shapes.items())])
    np.savez_compressed(FOLDER / f"{name}.npz", tensors=listed, **held)


if __name__ == "__main__":
    with torch.no_grad():
        minilm(sys.argv[2]) if sys.argv[1:2] == ["minilm"] else main()
