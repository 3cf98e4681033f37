"BEATs against the reference fixtures beside this file."
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from contrastasc.beats import BEATs, BEATsConfig, mean_tokens, relative_buckets, shrink_mask, trace

HERE = Path(__file__).parent
FINAL, FBANK = 1e-4, 5e-4


def fixture(name):
    with safe_open(HERE / f"{name}.safetensors", "pt") as f:
        return f.metadata(), {k: f.get_tensor(k) for k in f.keys()}


def build(name):
    meta, data = fixture(name)
    model = BEATs(BEATsConfig.from_dict(json.loads(meta["cfg"]))).eval()
    model.load_state_dict({k.removeprefix("weights/"): v for k, v in data.items() if k.startswith("weights/")})
    return meta, model, data


def near(ours, theirs, tolerance=FINAL): torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def tiny(): return build("beats_tiny")


@pytest.fixture(scope="module")
def tagger(): return build("beats_tiny_finetuned")


@torch.no_grad()
@pytest.mark.parametrize("case", "ab")
def test_stages(tiny, case):
    _, model, data = tiny
    out = {k.split("/")[1]: v for k, v in data.items() if k.startswith(f"outputs_{case}/")}
    fbank = model.fbank(data[f"inputs/wave_{case}"])
    near(fbank, out["fbank"], FBANK)
    patches = model.layer_norm(model.patch_embedding(fbank[:, None]).flatten(2).mT)
    near(patches, out["patch_ln"])
    if case == "a":
        near(model.patches(fbank), out["patch_proj"])
        near(model.encoder.pos_conv(model.patches(fbank).mT).mT, out["pos_conv_out"])


@torch.no_grad()
@pytest.mark.parametrize("case", "ab")
def test_layers_and_tokens(tiny, case):
    _, model, data = tiny
    out = {k.split("/")[1]: v for k, v in data.items() if k.startswith(f"outputs_{case}/")}
    wave, mask = data[f"inputs/wave_{case}"], data.get(f"inputs/padding_mask_{case}")
    entered = []
    hook = model.encoder.layer_norm.register_forward_hook(lambda m, args, y: entered.append(y))
    seen = trace(model, wave, mask)
    hook.remove()
    near(entered[0], out["encoder_in_after_pos_ln"])
    for i, layer in enumerate(seen.layers): near(layer, out[f"layer{i}_out"])
    near(seen.tokens, out["final"])


def test_from_the_reference_filter_bank(tiny):
    _, model, data = tiny
    with torch.no_grad(): near(model.encode(data["outputs_a/fbank"]), data["outputs_a/final"], 1e-5)


def test_padding(tiny):
    _, model, data = tiny
    frames = shrink_mask(data["inputs/padding_mask_b"], 298)
    assert torch.equal(frames, data["outputs_b/frame_padding_mask"])
    assert torch.equal(model.token_mask(frames), data["outputs_b/token_padding_mask"])
    with torch.no_grad(): near(model(data["inputs/wave_b"]), data["outputs_b_nomask/final"])


def test_buckets(tiny):
    data = tiny[2]
    assert torch.equal(relative_buckets(data["aux/rel_pos"]), data["aux/rel_bucket"])


def test_parameter_count(tiny, tagger):
    for meta, model, _ in (tiny, tagger): assert sum(p.numel() for p in model.parameters()) == int(meta["param_count"])


@torch.no_grad()
def test_finetuned(tagger):
    _, model, data = tagger
    near(model.classify(data["inputs/wave_a"]), data["outputs_a/final"])
    near(model.classify(data["inputs/wave_b"], data["inputs/padding_mask_b"]), data["outputs_b/final"])
    near(model.classify(data["inputs/wave_b"]), data["outputs_b_nomask/final"])
    near(model.predictor(model(data["inputs/wave_a"])), data["outputs_a/predictor_token_logits"])
    padding = data["outputs_b/token_padding_mask"]
    logits = model.predictor(model(data["inputs/wave_b"], data["inputs/padding_mask_b"]))
    near(logits.masked_fill(padding[..., None], 0), data["outputs_b/predictor_token_logits"].masked_fill(padding[..., None], 0))


def test_base_keys():
    keys = json.loads((HERE / "beats_base_keys.json").read_text())
    cfg = BEATsConfig.from_dict(keys["cfg"])
    for finetuned, count in ((False, "pretrained"), (True, "finetuned")):
        cfg.finetuned_model = finetuned
        with torch.device("meta"): model = BEATs(cfg)
        expected = keys["pretrained"] + (keys["finetuned_extra"] if finetuned else [])
        ours = {k: (list(v.shape), str(v.dtype)) for k, v in model.state_dict().items()}
        assert ours == {k: (shape, dtype) for k, shape, dtype in expected}
        assert len(ours) == keys["n_keys"][count]
        assert sum(p.numel() for p in model.parameters()) == keys["param_count"][count]


def rule(key, i, shape, c):
    "The closed-form weights of beats_base_rule, as its metadata states them."
    j = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    s = torch.sin(j * (0.7 + c) + (i + 1) * 1.3) * torch.cos(j * 0.013 * (1 + c) + i)
    if key.endswith("relative_attention_bias.weight"): w = 0.5 * torch.sin(j * (0.7 + c))
    elif key.endswith("grep_a"): w = 1 + 0.3 * s
    elif key.endswith("layer_norm.weight"): w = 1 + 0.1 * s
    elif key.endswith(".bias"): w = 0.05 * s
    elif key.endswith("weight_g"): w = 1 + 0.2 * s
    elif key.endswith("patch_embedding.weight"): w = s / 16
    elif key.endswith("weight_v"): w = 0.1 * s
    else: w = s * (2 / shape[-1]) ** 0.5
    return w.reshape(shape).float()


@torch.no_grad()
def test_base_rule():
    meta, data = fixture("beats_base_rule")
    with torch.device("meta"): model = BEATs(BEATsConfig.from_dict(json.loads(meta["cfg"])))
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    weights = {k: rule(k, i, shapes[k], float(meta["c"])) for i, k in enumerate(sorted(shapes))}
    model.load_state_dict(weights, assign=True)
    model.frontend = type(model.frontend)()
    tokens = model.eval()(data["inputs/wave"])
    near(torch.cat([tokens[:, :4], tokens[:, -4:]], 1), data["outputs/final_first4_last4_tokens"])
    near(mean_tokens(tokens), data["outputs/mean_pooled"])
    near(model.embed(data["inputs/wave"]), data["outputs/mean_pooled"])
    near(tokens.norm(dim=-1), data["outputs/token_norms"], 1e-3)
