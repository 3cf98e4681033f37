"BEATs against the reference fixtures beside this file."
import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
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


@pytest.fixture(scope="module")
def base():
    meta, data = fixture("beats_base_rule")
    with torch.device("meta"): model = BEATs(BEATsConfig.from_dict(json.loads(meta["cfg"])))
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    model.load_state_dict({k: rule(k, i, shapes[k], float(meta["c"])) for i, k in enumerate(sorted(shapes))}, assign=True)
    model.frontend = type(model.frontend)()
    return model.eval(), data


def written_out(state, fbank, layers=12, heads=12):
    "BEATs base from its state dict alone, formula by formula, in the fixture's order of operations."
    get = lambda name: state[name].to(fbank.dtype)
    linear = lambda x, name: x @ get(f"{name}.weight").T + get(f"{name}.bias")
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], get(f"{name}.weight"), get(f"{name}.bias"))
    squares = fbank[:, :fbank.shape[1] // 16 * 16].unflatten(1, (-1, 16)).unflatten(3, (8, 16)).transpose(2, 3).flatten(1, 2).flatten(2)
    x = linear(norm(squares @ get("patch_embedding.weight").flatten(1).T, "layer_norm"), "post_extract_proj")
    n, dim = x.shape[1:]
    v = get("encoder.pos_conv.0.weight_v")
    weight = get("encoder.pos_conv.0.weight_g") * v / v.square().sum((0, 1), keepdim=True).sqrt()
    conv = F.conv1d(x.mT, weight, get("encoder.pos_conv.0.bias"), padding=64, groups=16)[..., :-1].mT
    x = norm(x + F.gelu(conv), "encoder.layer_norm")
    place = torch.arange(n)
    bias = get("encoder.layers.0.self_attn.relative_attention_bias.weight")[relative_buckets(place[None] - place[:, None])].permute(2, 0, 1)
    split = lambda t: t.unflatten(-1, (heads, -1)).transpose(1, 2)
    for i in range(layers):
        name = f"encoder.layers.{i}"
        q, k, value = (split(linear(x, f"{name}.self_attn.{p}_proj")) for p in "qkv")
        a, b = linear(q, f"{name}.self_attn.grep_linear").unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, -1)
        gate = a * (b * get(f"{name}.self_attn.grep_a") - 1) + 2
        scores = q * (dim // heads) ** -0.5 / 32 @ k.mT
        w = ((scores - scores.amax(-1, keepdim=True)) * 32 + gate * bias).softmax(-1)
        mixed = linear((w @ value).transpose(1, 2).flatten(2), f"{name}.self_attn.out_proj")
        x = norm(x * (2 * layers) ** 0.25 + mixed, f"{name}.self_attn_layer_norm")
        x = norm(x * (2 * layers) ** 0.25 + linear(F.gelu(linear(x, f"{name}.fc1")), f"{name}.fc2"), f"{name}.final_layer_norm")
    return x


@torch.no_grad()
def test_base_rule_in_double_precision(base):
    "These weights amplify a difference in the filter bank about 10^6-fold over twelve layers, so formulas are compared in float64."
    model, data = base
    fbank = model.fbank(data["inputs/wave"])
    single = model.encode(fbank)
    double = copy.deepcopy(model).double()
    exact = double.encode(fbank)
    near(exact, written_out(model.state_dict(), fbank.double()), 1e-6)
    seen = []
    for m in (model, double):
        hook = m.encoder.layers[0].register_forward_hook(lambda m, args, y: seen.append(y))
        m.encode(fbank)
        hook.remove()
    near(seen[0].double(), seen[1])
    assert single.isfinite().all()


@torch.no_grad()
def test_base_rule_against_the_reference(base):
    "What of the reference's float32 output survives that amplification: shapes and norms, not single values."
    model, data = base
    tokens = model(data["inputs/wave"])
    torch.testing.assert_close(tokens.norm(dim=-1), data["outputs/token_norms"], rtol=0.1, atol=0)
    near(model.embed(data["inputs/wave"]), mean_tokens(tokens), 1e-5)
