"Edge cases of contrastasc.beats."
import argparse
import copy
import json
import math
import os
import pickle
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from contrastasc.beats import (
    Attention, BEATs, BEATsConfig, EncoderLayer, GLU, PositionConv, band_statistics, load_beats, mean_tokens, relative_buckets, save_beats,
    shrink_mask, trace,
)

SMALL = replace(BEATsConfig.base(), encoder_layers=2, encoder_embed_dim=64, encoder_ffn_embed_dim=96, encoder_attention_heads=4,
                embed_dim=32, conv_pos=16, conv_pos_groups=4)


def make(seed=0, **changes):
    torch.manual_seed(seed)
    model = BEATs(replace(SMALL, **changes)).eval()
    with torch.no_grad():
        for p in model.parameters(): p.add_(0.05 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def model(): return make()


@pytest.fixture(scope="module")
def wave():
    torch.manual_seed(1)
    return 0.1 * torch.randn(2, 16000)


def frames_hiding(tokens, n):
    "A frame mask [B, 96] that pads exactly the tokens (of 48) not in `tokens`."
    hidden = torch.ones(len(tokens), n, dtype=torch.bool).scatter(1, tokens, False)
    return hidden.repeat_interleave(2, 1)


# --- configuration

def test_from_dict_ignores_unknown_and_fills_defaults():
    cfg = BEATsConfig.from_dict({"encoder_layers": 3, "quant_n": 1024, "max_layer": 4})
    assert cfg == replace(BEATsConfig(), encoder_layers=3)
    assert BEATsConfig.from_dict(asdict(BEATsConfig.nano())) == BEATsConfig.nano()


@pytest.mark.parametrize("bad", [dict(activation_fn="swish"), dict(encoder_attention_heads=5), dict(conv_pos_groups=5), dict(encoder_layers=0),
                                 dict(input_patch_size=-1), dict(input_patch_size=129)])
def test_bad_configuration(bad):
    with pytest.raises(ValueError, match=next(iter(bad))): replace(SMALL, **bad)
    with pytest.raises(ValueError, match="dict"): BEATsConfig.from_dict(argparse.Namespace())


def test_published_values():
    cfg = BEATsConfig.base()
    assert (cfg.encoder_layers, cfg.encoder_embed_dim, cfg.encoder_ffn_embed_dim, cfg.encoder_attention_heads) == (12, 768, 3072, 12)
    assert (cfg.embed_dim, cfg.input_patch_size, cfg.num_buckets, cfg.max_distance) == (512, 16, 320, 800)
    assert cfg.deep_norm and cfg.relative_position_embedding and cfg.gru_rel_pos and not cfg.layer_norm_first


def test_nano_size():
    nano = BEATs(BEATsConfig.nano())
    assert 1.5e6 <= sum(p.numel() for p in nano.parameters()) <= 3e6
    assert nano.embed(torch.randn(2, 16000)).shape == (2, 192)


# --- parts

def scalar_bucket(rel, buckets, longest):
    half, d = buckets // 2, abs(rel)
    exact = half // 2
    if d < exact: return d + half * (rel > 0)
    return min(half - 1, exact + int(math.log(d / exact) / math.log(longest / exact) * (half - exact))) + half * (rel > 0)


@pytest.mark.parametrize("buckets, longest", [(320, 800), (32, 128), (8, 20)])
def test_buckets_follow_the_formula(buckets, longest):
    rel = torch.arange(-1000, 1001)
    ours = relative_buckets(rel, buckets, longest)
    expected = torch.tensor([scalar_bucket(int(r), buckets, longest) for r in rel])
    assert (ours != expected).sum() <= 4 and (ours - expected).abs().max() <= 1  # float32 may round at an edge
    if (buckets, longest) == (320, 800): assert torch.equal(ours, expected)
    assert ours.min() >= 0 and ours.max() < buckets


def test_gate_uses_the_unscaled_query():
    torch.manual_seed(0)
    attention, x, bias = Attention(64, 4), torch.randn(2, 10, 64), torch.randn(1, 4, 10, 10)
    torch.nn.init.uniform_(attention.grep_a, 0.5, 1.5)
    q = attention.q_proj(x).view(2, 10, 4, 16).transpose(1, 2)
    k, v = (p(x).view(2, 10, 4, 16).transpose(1, 2) for p in (attention.k_proj, attention.v_proj))
    eight = attention.grep_linear(q).view(2, 4, 10, 2, 4).sum(-1).sigmoid()
    gate = eight[..., :1] * (eight[..., 1:] * attention.grep_a - 1) + 2
    w = (q @ k.mT / 4 + gate * bias).softmax(-1)
    expected = attention.out_proj((w @ v).transpose(1, 2).reshape(2, 10, 64))
    torch.testing.assert_close(attention(x, bias), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention.weights(x, bias), w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_attention_masks(gated, with_bias):
    torch.manual_seed(0)
    attention, x = Attention(32, 4, gated=gated), torch.randn(3, 7, 32)
    bias = torch.randn(1, 4, 7, 7) if with_bias else None
    padding = torch.arange(7)[None] >= torch.tensor([[7], [4], [1]])
    y = attention(x, bias, padding)
    for i, n in enumerate((7, 4, 1)):
        alone = attention(x[i:i + 1, :n], None if bias is None else bias[..., :n, :n])
        torch.testing.assert_close(y[i:i + 1, :n], alone, rtol=1e-4, atol=1e-5)
    assert attention.weights(x, bias, padding)[2, ..., 1:].sum() == 0


@pytest.mark.parametrize("kernel", [1, 2, 15, 16, 128])
def test_position_conv_keeps_the_length(kernel):
    conv = PositionConv(32, kernel, 4)
    assert conv(torch.randn(2, 32, 9)).shape == (2, 32, 9)
    torch.testing.assert_close(conv.weight_g, conv.weight_v.norm(dim=(0, 1), keepdim=True))


def naive_layer(layer, x, bias):
    half = lambda y: layer.feed_forward(y)
    if layer.norm_first:
        x = x + layer.self_attn(layer.self_attn_layer_norm(x), bias)
        return x + half(layer.final_layer_norm(x))
    x = layer.self_attn_layer_norm(layer.alpha * x + layer.self_attn(x, bias))
    return layer.final_layer_norm(layer.alpha * x + half(x))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "gelu_accurate", "gelu_fast", "relu", "tanh", "linear", "glu"])
def test_layer_forms(norm_first, activation):
    layer = EncoderLayer(replace(SMALL, layer_norm_first=norm_first, activation_fn=activation)).eval()
    x, bias = torch.randn(2, 9, 64), torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(layer(x, bias), naive_layer(layer, x, bias))
    assert layer.alpha == (1 if norm_first else 4 ** 0.25)


def test_feed_forward_by_hand():
    x = torch.randn(2, 5, 64)
    layer = EncoderLayer(SMALL).eval()
    torch.testing.assert_close(layer.feed_forward(x), layer.fc2(F.gelu(layer.fc1(x))))
    layer = EncoderLayer(replace(SMALL, activation_fn="glu")).eval()
    assert isinstance(layer.fc1, GLU) and layer.fc1.linear.weight.shape == (192, 64)
    a, b = layer.fc1.linear(x).split(96, -1)
    torch.testing.assert_close(layer.feed_forward(x), layer.fc2(a * b * b.sigmoid()))


def test_pre_norm_ends_with_the_layer_norm(wave):
    model = make(layer_norm_first=True)
    seen = trace(model, wave)
    torch.testing.assert_close(seen.tokens, model.encoder.layer_norm(seen.layers[-1]))


def test_initialisation():
    torch.manual_seed(0)
    cfg = replace(BEATsConfig.base(), encoder_layers=2, embed_dim=64)
    encoder = BEATs(cfg).encoder
    beta, xavier = 16 ** -0.25, math.sqrt(2 / (2 * 768))
    attn, layer = encoder.layers[1].self_attn, encoder.layers[1]
    for linear, std in ((attn.q_proj, xavier), (attn.k_proj, xavier), (attn.v_proj, beta * xavier), (attn.out_proj, beta * xavier),
                        (layer.fc1, beta * math.sqrt(2 / (768 + 3072))), (layer.fc2, beta * math.sqrt(2 / (768 + 3072)))):
        assert linear.weight.std().item() == pytest.approx(std, rel=0.02) and linear.bias.abs().sum() == 0
    assert attn.relative_attention_bias.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert attn.grep_linear.weight.std().item() == pytest.approx(0.02, rel=0.15) and (attn.grep_a == 1).all()
    conv = encoder.pos_conv[0]
    assert conv.weight_v.std().item() == pytest.approx(math.sqrt(4 / (128 * 768)), rel=0.02) and conv.bias.abs().sum() == 0
    plain = BEATs(replace(cfg, deep_norm=False)).encoder.layers[0]
    assert plain.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02) and plain.alpha == 1


# --- the model

def test_shapes(model, wave):
    assert model(wave).shape == (2, 48, 64) and model.embed(wave).shape == (2, 64)
    assert model(torch.randn(1, 160000)).shape == (1, 496, 64)
    assert model(torch.randn(1, 2800)).shape == (1, 8, 64)
    torch.testing.assert_close(model.embed(wave), model(wave).mean(1))


def test_name_and_rate(model): assert model.sample_rate == 16000 and model.name == "beats-2x64"


def test_same_width_needs_no_projection(wave):
    model = make(embed_dim=64)
    assert not any("post_extract_proj" in k for k in model.state_dict()) and model(wave).shape == (2, 48, 64)


def test_plain_transformer(wave):
    model = make(relative_position_embedding=False, gru_rel_pos=False, deep_norm=False, conv_bias=True)
    assert not any("grep" in k or "relative" in k for k in model.state_dict()) and "patch_embedding.bias" in model.state_dict()
    padding = torch.zeros(2, 16000, dtype=torch.bool)
    padding[1, 8000:] = True
    assert model(wave, padding).isfinite().all()
    torch.testing.assert_close(model(wave, padding)[0], model(wave)[0], rtol=1e-4, atol=1e-5)


def test_too_short(model):
    with pytest.raises(ValueError, match="2800 samples"): model(torch.zeros(1, 2799))
    with pytest.raises(ValueError, match="2800 samples"): model.embed(torch.zeros(1, 10))
    with pytest.raises(ValueError, match="at least 16 frames"): model.encode(torch.zeros(1, 15, 128))


@pytest.mark.parametrize("wrong", [torch.zeros(16000), torch.zeros(1, 1, 16000)])
def test_wrong_waveform_shape(model, wrong):
    with pytest.raises(ValueError, match=r"\[B, T\]"): model(wrong)


def test_wrong_shapes(model, wave):
    with pytest.raises(ValueError, match="filter bank"): model.encode(torch.zeros(1, 98, 64))
    with pytest.raises(ValueError, match="padding_mask"): model(wave, torch.zeros(2, 15999, dtype=torch.bool))
    with pytest.raises(ValueError, match="padding_mask"): model.encode(model.fbank(wave), torch.zeros(2, 97, dtype=torch.bool))
    with pytest.raises(ValueError, match="cannot describe"): shrink_mask(torch.zeros(1, 3, dtype=torch.bool), 4)


def test_classify_only_when_finetuned(model, wave):
    with pytest.raises(ValueError, match="fine-tuned"): model.classify(wave)
    tagger = make(finetuned_model=True, predictor_class=7)
    p = tagger.classify(wave)
    torch.testing.assert_close(p, tagger.predictor(tagger.embed(wave)).sigmoid())
    assert tagger(wave).shape == (2, 48, 64)
    padded = torch.ones(2, 16000, dtype=torch.bool)
    assert tagger.classify(wave, padded).isfinite().all()


def test_no_padding_is_no_mask(model, wave):
    torch.testing.assert_close(model(wave, torch.zeros(2, 16000, dtype=torch.bool)), model(wave), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(wave, torch.zeros(2, 16000)), model(wave), rtol=1e-4, atol=1e-5)


def test_padding_content_is_ignored(model, wave):
    padding = torch.zeros(2, 16000, dtype=torch.bool)
    padding[1, 8000:] = True
    other = wave.clone()
    other[1, 10480:] = 0.9 * torch.randn(5520)
    torch.testing.assert_close(model.embed(other, padding), model.embed(wave, padding), rtol=1e-4, atol=1e-5)
    assert (model.embed(wave, padding)[0] - model.embed(wave)[0]).abs().max() < 1e-4


def test_everything_padded_is_finite(model, wave):
    padding = torch.tensor([[False], [True]]).expand(2, 16000)
    leaf = wave.clone().requires_grad_()
    tokens = model(leaf, padding)
    assert tokens.isfinite().all() and (model.embed(wave, padding)[1] == 0).all()
    torch.testing.assert_close(tokens[0], model(wave)[0], rtol=1e-4, atol=1e-5)
    gradient, = torch.autograd.grad(tokens.square().sum(), leaf)
    assert gradient.isfinite().all()


def test_silence_is_finite(model): assert model.embed(torch.zeros(2, 16000)).isfinite().all()


def test_mean_tokens_ignores_nan_in_padding():
    x = torch.tensor([[[1.0], [3.0], [math.nan]]])
    assert mean_tokens(x, torch.tensor([[False, False, True]])).item() == 2


# --- kept patches

def test_band_statistics_by_hand():
    tokens, padding = torch.randn(2, 48, 6), torch.zeros(2, 48, dtype=torch.bool)
    tokens[1, 32:], padding[1, 32:] = torch.nan, True  # two columns are padding
    stats = band_statistics(tokens, padding).unflatten(1, (2, 8, 6))
    for clip, columns in ((0, 6), (1, 4)):
        for band in range(8):
            heard = tokens[clip, band:8 * columns:8]
            assert torch.allclose(stats[clip, 0, band], heard.mean(0), atol=1e-6)
            assert torch.allclose(stats[clip, 1, band], heard.std(0, correction=0), atol=1e-6)
    assert torch.equal(band_statistics(tokens[:1]), band_statistics(tokens[:1], padding[:1]))


def test_band_statistics_of_nothing_and_of_one_column():
    tokens = torch.randn(1, 8, 6, requires_grad=True)
    assert not band_statistics(tokens, torch.ones(1, 8, dtype=torch.bool)).any()
    stats = band_statistics(tokens)
    stats.sum().backward()
    assert not stats[:, 48:].any() and tokens.grad.isfinite().all()


def test_readout_bands(model, wave):
    read = BEATs(replace(model.config, readout="bands")).eval()
    read.load_state_dict(model.state_dict())
    n_bands = 128 // model.config.input_patch_size
    assert torch.allclose(read.embed(wave), band_statistics(model(wave), bands=n_bands), atol=1e-6)
    assert not torch.equal(read.embed(wave)[:, :model.config.encoder_embed_dim], model.embed(wave))
    with pytest.raises(ValueError, match="readout must be one of mean, bands"): replace(model.config, readout="median")


def test_readout_survives_the_file(model, wave, tmp_path):
    read = BEATs(replace(model.config, readout="bands")).eval()
    save_beats(read, tmp_path / "read.safetensors")
    again = load_beats(tmp_path / "read.safetensors").eval()
    assert again.config.readout == "bands" and torch.equal(again.embed(wave), read.embed(wave))


def test_keep_all_equals_no_keep(model, wave):
    fbank = model.fbank(wave)
    everything = torch.arange(48).expand(2, -1)
    torch.testing.assert_close(model.encode(fbank, keep=everything), model.encode(fbank), rtol=0, atol=1e-6)


def test_keep_follows_its_order(model, wave):
    fbank, order = model.fbank(wave), torch.stack([torch.randperm(48), torch.randperm(48)])
    expected = model.encode(fbank).gather(1, order[..., None].expand(-1, -1, 64))
    torch.testing.assert_close(model.encode(fbank, keep=order), expected, rtol=1e-4, atol=1e-5)


def test_keep_equals_padding_of_the_rest(model, wave):
    fbank = model.fbank(wave)[:, :96]
    keep = torch.stack([torch.randperm(48)[:12].sort().values for _ in range(2)])
    whole = model.encode(fbank, frames_hiding(keep, 48)).gather(1, keep[..., None].expand(-1, -1, 64))
    torch.testing.assert_close(model.encode(fbank, keep=keep), whole, rtol=1e-4, atol=1e-5)


def test_keep_never_sees_the_rest(model, wave):
    fbank = model.fbank(wave)
    keep = torch.tensor([[0, 9], [47, 3]])
    other = fbank.clone()
    other[0, 16:32, :16] = 99
    other[1, :16, 64:] = 99
    assert torch.equal(model.encode(other, keep=keep), model.encode(fbank, keep=keep))


def test_keep_with_padding(model, wave):
    fbank, padding = model.fbank(wave), torch.zeros(2, 98, dtype=torch.bool)
    padding[1, 50:] = True
    keep = torch.tensor([[0, 5, 30], [1, 20, 40]])
    y = model.encode(fbank, padding, keep)
    torch.testing.assert_close(y[1, :2], model.encode(fbank[1:], None, keep[1:, :2])[0], rtol=1e-4, atol=1e-5)
    assert model.encode(fbank, padding, torch.tensor([[0], [47]])).isfinite().all()


@pytest.mark.parametrize("keep", [torch.tensor([[48], [0]]), torch.tensor([[-1], [0]]), torch.tensor([0, 1]), torch.zeros(2, 0, dtype=torch.int64),
                                  torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2, 2)])
def test_bad_keep(model, wave, keep):
    with pytest.raises(ValueError, match="keep"): model.encode(model.fbank(wave), keep=keep)


# --- training

@pytest.mark.parametrize("changes", [dict(), dict(layer_norm_first=True), dict(activation_fn="glu"), dict(finetuned_model=True, predictor_class=5),
                                     dict(layer_wise_gradient_decay_ratio=0.6)])
def test_gradients_reach_every_parameter(wave, changes):
    model = make(**changes).train()
    y = model.classify(wave) if model.config.finetuned_model else model(wave)
    (y * torch.randn_like(y)).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0 or name.endswith("k_proj.bias"), name


def test_gradients_with_keep(wave):
    model = make().train()
    model.encode(model.fbank(wave), keep=torch.tensor([[0, 9, 30], [4, 6, 47]])).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_gradient_of_the_position_bias():
    model = make().double()
    x = torch.randn(1, 8, 64, dtype=torch.float64)
    table = model.encoder.layers[0].self_attn.relative_attention_bias.weight
    loss = lambda: model.encoder(x).pow(3).sum()
    grad, = torch.autograd.grad(loss(), table)
    with torch.no_grad():
        for index in ((0, 1), (3, 2), (165, 0)):
            before = table[index].item()
            table[index] = before + 1e-6; up = loss()
            table[index] = before - 1e-6; down = loss()
            table[index] = before
            assert grad[index].item() == pytest.approx((up - down).item() / 2e-6, rel=1e-5, abs=1e-8)
    assert grad[8:160].abs().sum() == 0


def test_layer_wise_gradient_decay(wave):
    plain, decayed = make(), make(layer_wise_gradient_decay_ratio=0.5)
    assert torch.equal(plain(wave), decayed(wave))
    for m in (plain, decayed): m(wave).square().sum().backward()
    def ratio(name): return (dict(decayed.named_parameters())[name].grad / dict(plain.named_parameters())[name].grad).median().item()
    assert ratio("encoder.layers.1.fc1.weight") == pytest.approx(1)
    assert ratio("encoder.layers.0.fc1.weight") == pytest.approx(0.5)
    assert ratio("patch_embedding.weight") == pytest.approx(0.25)


@pytest.mark.parametrize("field", ["dropout", "attention_dropout", "activation_dropout", "dropout_input"])
def test_dropouts_act_in_training_only(wave, field):
    model = make(**{field: 0.5})
    assert torch.equal(model(wave), make()(wave))
    model.train()
    assert not torch.equal(model(wave), model(wave))


def test_predictor_dropout(wave):
    model = make(finetuned_model=True, predictor_class=3, predictor_dropout=0.5)
    assert torch.equal(model.classify(wave), model.classify(wave))
    model.train()
    assert not torch.equal(model.classify(wave), model.classify(wave))


def test_layer_drop(wave):
    model = make(encoder_layerdrop=1.0)
    assert torch.equal(model(wave), make()(wave))
    model.train()
    entered = []
    model.encoder.layer_norm.register_forward_hook(lambda m, args, y: entered.append(y))
    assert torch.equal(model(wave), entered[0])


def test_half_precision(wave):
    model = make()
    padding = torch.zeros(2, 16000, dtype=torch.bool)
    padding[1, 8000:] = True
    exact = model.embed(wave, padding)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model.train().embed(wave, padding)
        y.float().square().sum().backward()
    assert y.isfinite().all() and F.cosine_similarity(y.float(), exact).min() > 0.99
    assert all(p.grad.isfinite().all() for p in model.parameters())
    half = make().bfloat16().embed(wave, padding)
    assert half.dtype == torch.bfloat16 and F.cosine_similarity(half.float(), exact).min() > 0.99
    assert make().bfloat16().encode(torch.randn(1, 98, 128), keep=torch.tensor([[1, 2]])).isfinite().all()


def test_filter_bank_ignores_autocast(model, wave):
    exact = model.fbank(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16): assert torch.equal(model.fbank(wave), exact)


def test_copies_and_pickles(model, wave):
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))): assert torch.equal(twin(wave), model(wave))


def test_trace_leaves_nothing_behind(model, wave):
    seen = trace(model, wave)
    assert not any(m._forward_hooks for m in model.modules())
    assert not seen.tokens.requires_grad and len(seen.attention) == 2
    with pytest.raises(ValueError): trace(model, torch.zeros(1, 5))
    assert not any(m._forward_hooks for m in model.modules())


def test_trace_with_padding(model, wave):
    padding = torch.zeros(2, 16000, dtype=torch.bool)
    padding[1, 8000:] = True
    seen = trace(model, wave, padding)
    torch.testing.assert_close(seen.tokens, model(wave, padding))
    assert seen.attention[0][1, ..., 25:].sum() == 0


# --- files

def official(model, path, **extra):
    torch.save({"cfg": asdict(model.config), "model": model.state_dict(), **extra}, path)
    return path


def refuses(path, *words):
    with pytest.raises(ValueError) as e: load_beats(path)
    message = str(e.value)
    assert str(path) in message and "\n" not in message
    for word in words: assert word in message, message


def test_official_file(model, wave, tmp_path):
    path = official(model, tmp_path / "model.pt")
    again = load_beats(str(path))
    assert torch.equal(again(wave), model(wave)) and not again.training and again.name == "model"
    assert again.labels is None and all(p.requires_grad for p in again.parameters())
    tables = [layer.self_attn.relative_attention_bias for layer in again.encoder.layers]
    assert tables[0] is tables[1]
    again.train()(wave).sum().backward()


def test_official_file_with_labels(wave, tmp_path):
    tagger = make(finetuned_model=True, predictor_class=2)
    again = load_beats(official(tagger, tmp_path / "tagger.pt", label_dict={0: "/m/a", 1: "/m/b"}))
    assert again.labels == {0: "/m/a", 1: "/m/b"} and torch.equal(again.classify(wave), tagger.classify(wave))
    save_beats(again, tmp_path / "tagger.safetensors")
    assert load_beats(tmp_path / "tagger.safetensors").labels == {0: "/m/a", 1: "/m/b"}


def test_half_precision_file(model, tmp_path):
    torch.save({"cfg": asdict(model.config), "model": {k: v.half() for k, v in model.state_dict().items()}}, tmp_path / "half.pt")
    assert {p.dtype for p in load_beats(tmp_path / "half.pt").parameters()} == {torch.float32}


def test_changed_configuration(model, tmp_path):
    path = official(make(layer_wise_gradient_decay_ratio=0.6), tmp_path / "m.pt")
    assert load_beats(path).config.layer_wise_gradient_decay_ratio == 0.6
    assert load_beats(path, layer_wise_gradient_decay_ratio=1.0).config.layer_wise_gradient_decay_ratio == 1.0
    with pytest.raises(ValueError, match="configuration"): load_beats(path, nonsense=1)


def test_safetensors_round_trip(model, wave, tmp_path):
    path = tmp_path / "new" / "m.safetensors"
    save_beats(model, path)
    assert torch.equal(load_beats(path)(wave), model(wave)) and load_beats(path).config == model.config
    assert list(path.parent.iterdir()) == [path] and set(load_file(path)) == set(model.state_dict())
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_save_is_atomic(model, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_beats(model, path)
    before = path.read_bytes()
    def broken(*args, **kwargs): raise OSError("disk full")
    monkeypatch.setattr("contrastasc.beats.os.replace", broken)
    with pytest.raises(OSError): save_beats(make(seed=5), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="safetensors"): save_beats(model, tmp_path / "m.pt")


def test_missing_file(tmp_path):
    refuses(tmp_path / "none.pt", "no such file")
    refuses(tmp_path, "no such file")


@pytest.mark.parametrize("start", [b"<!DOCTYPE html><html>", b"\n\n  <html>", b"\xef\xbb\xbf<html>", b"<"])
def test_web_page(tmp_path, start):
    path = tmp_path / "page.pt"
    path.write_bytes(start)
    refuses(path, "web page", "download")


def test_damaged_files(model, tmp_path):
    whole = official(model, tmp_path / "whole.pt").read_bytes()
    for n, data in enumerate((whole[:len(whole) // 2], whole[:100], b"", b"RIFF....WAVE", os.urandom(3000), b"\x80\x02", b"PK\x03\x04")):
        path = tmp_path / f"{n}.pt"
        path.write_bytes(data)
        refuses(path, "download it again")
    save_beats(model, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    for data in (whole[:-100], whole[:50], b"", b"<html></html>"):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(data)
        refuses(path, "download it again")


def test_python_objects_are_not_opened(model, tmp_path):
    class_ = argparse.Namespace(**asdict(model.config))
    torch.save({"cfg": class_, "model": model.state_dict()}, tmp_path / "namespace.pt")
    refuses(tmp_path / "namespace.pt", "not opened")

    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path / "evil"),)
    torch.save({"cfg": {}, "model": {}, "x": Evil()}, tmp_path / "evil.pt")
    refuses(tmp_path / "evil.pt", "not opened")
    assert not (tmp_path / "evil").exists()


def test_other_dicts(model, tmp_path):
    for n, thing in enumerate((model.state_dict(), {"cfg": {}}, {}, [1], torch.zeros(3), {"cfg": 1, "model": {}})):
        torch.save(thing, tmp_path / f"{n}.pt")
        refuses(tmp_path / f"{n}.pt", "'cfg' and 'model'")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    refuses(tmp_path / "a.safetensors", "cfg")


def test_keys_and_shapes(model, tmp_path):
    state = model.state_dict()
    def write(s, **cfg):
        torch.save({"cfg": asdict(model.config) | cfg, "model": s}, tmp_path / "m.pt")
        return tmp_path / "m.pt"
    refuses(write({k: v for k, v in state.items() if k != "layer_norm.bias"}), "missing: layer_norm.bias")
    refuses(write(state | {"extra.weight": torch.zeros(1)}), "unexpected: extra.weight")
    refuses(write(state | {"layer_norm.bias": torch.zeros(31)}), "another shape: layer_norm.bias")
    refuses(write(state | {"layer_norm.bias": 3}), "layer_norm.bias")
    refuses(write(state, encoder_layers=3), "encoder.layers.2", "more")
    refuses(write(state, encoder_attention_heads=7), "encoder_attention_heads")
    refuses(write(state, encoder_embed_dim="wide"), "configuration")
    refuses(write(state | {"quantize.embedding.weight": torch.zeros(1024, 256)}), "tokenizer", "AS2M")


def test_half_precision_hears_the_same():
    torch.manual_seed(0)
    encoder, fbank = BEATs(BEATsConfig.nano()).eval(), torch.randn(8, 98, 128)
    exact = encoder.encode(fbank)
    with torch.autocast("cpu", torch.bfloat16): rough = encoder.encode(fbank).float()
    assert (rough - exact).norm() < 0.05 * (exact - exact.mean((0, 1))).norm()
