"Export without Python: the graph in ONNX Runtime, the page's JavaScript in node and in a browser, and the page as people use it."
import base64
import copy
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import soundfile as sf
import torch
from torch import nn

from contrastasc import deploy
from contrastasc.audio import resample
from contrastasc.beats import BEATs, BEATsConfig
from contrastasc.cpmobile import VARIANTS, CPMobile, Student
from contrastasc.deploy import ExportError, export_model, export_onnx, export_page
from contrastasc.enroll import LiveEnroller, Recogniser
from contrastasc.fewshot import FewShotClassifier
from contrastasc.frontend import LogMel
from contrastasc.pretrained import load_pretrained
from contrastasc.project import directions
from contrastasc.store import EnrollmentStore, Shots

from .lab import _FLAGS, CHROMIUM, browser, microphone, window

SCRIPT = Path(deploy.__file__).parent / "static" / "cpmobile.js"
ASK = """async ({ script, jobs }) => {
  const lib = await import("data:text/javascript;base64," + script), pack = (x) => { const b = new Uint8Array(new Float32Array(x).buffer); let s = ""; for (let i = 0; i < b.length; i += 8192) s += String.fromCharCode(...b.subarray(i, i + 8192)); return btoa(s); }, floats = (t) => new Float32Array(lib.fromBase64(t)), doubles = (t) => new Float64Array(lib.fromBase64(t));
  const rows = (flat, d) => Array.from({ length: flat.length / d }, (_, i) => flat.subarray(i * d, (i + 1) * d));
  const acts = {
    student({ facts, waves }) { const s = new lib.Student(facts, lib.fromBase64(facts.weights)); return waves.map((w) => { const o = s.run(floats(w)); return { logmel: pack(o.logmel.data), embedding: pack(o.embedding), logits: pack(o.logits) }; }); },
    classify({ head, x, d }) { for (const k of ["centre", "scale", "weight", "bias", "means"]) head[k] = floats(head[k]); return rows(doubles(x), d).map((v) => lib.classify(head, v)); },
    fit({ x, d, names, groups, how, asked }) { const head = lib.fitMeans(rows(doubles(x), d), names, groups, how); return { temperature: head.temperature, threshold: head.threshold, classes: head.classes, calibrated: head.calibrated, said: rows(doubles(asked), d).map((v) => lib.classify(head, v)) }; },
    resample({ wave, rate }) { return pack(lib.resample(floats(wave), rate)); },
    judge({ results, classes, how }) { return lib.judge(results, classes, how); },
  };
  return jobs.map((j) => acts[j.act](j));
}"""


def packed(x, kind="<f4"): return base64.b64encode(np.ascontiguousarray(x, kind).tobytes()).decode()


def unpacked(text): return np.frombuffer(base64.b64decode(text), np.float32)


def by_node(jobs):
    code = f"let text = ''; process.stdin.on('data', (t) => text += t).on('end', () => ({ASK})(JSON.parse(text)).then((r) => process.stdout.write(JSON.stringify(r))));"
    payload = json.dumps(dict(script=base64.b64encode(SCRIPT.read_bytes()).decode(), jobs=jobs))
    return json.loads(subprocess.run(["node", "-e", code], input=payload, capture_output=True, text=True, check=True).stdout)


ENGINES = [pytest.param(name, marks=pytest.mark.skipif(program is None, reason=f"no {name} here")) for name, program in (("node", shutil.which("node")), ("browser", CHROMIUM))]


@pytest.fixture(params=ENGINES)
def ask(request):
    "Something that runs cpmobile.js: jobs in, answers out."
    if request.param == "node": return by_node
    page = request.getfixturevalue("chromium").new_page()
    request.addfinalizer(page.close)
    return lambda jobs: page.evaluate(ASK, dict(script=base64.b64encode(SCRIPT.read_bytes()).decode(), jobs=jobs))


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def student(variant="cpm6k", bands=1, head="cosine", norm="layer", n_classes=5, seed=0, classes=True):
    "Random weights and gains of GRN, batch normalisations that have seen some sound: its embeddings differ from sound to sound."
    torch.manual_seed(seed)
    made = Student(LogMel(fmax=7000, fmax_jitter=0), CPMobile(variant, n_classes, head, norm), bands).train()
    for name, v in made.named_parameters():
        if name.endswith(("gamma", "beta")): v.data.normal_(0, 0.3)
        elif v.ndim == 1: v.data += torch.randn_like(v) / 5
    norms = [m for m in made.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for m in norms: m.momentum = 1.0
    with torch.no_grad(): made(sounds(8))
    for m in norms: m.momentum = 0.1
    made.frontend = LogMel()
    if classes: made.classes = [f"class {i}" for i in range(n_classes)]
    return made.eval()


def sounds(n=4, seconds=1.0, seed=0):
    "Waveforms [n, T]: coloured noise with a tone each."
    dice, t = np.random.default_rng(seed), np.arange(int(16000 * seconds)) / 16000
    hz = dice.uniform(100, 6000, n)[:, None]
    noise = np.apply_along_axis(lambda x: np.convolve(x, np.ones(8) / 8, "same"), 1, dice.normal(size=(n, len(t))))
    return torch.tensor(0.2 * np.sin(2 * np.pi * hz * t) + 0.2 * noise, dtype=torch.float32)


@torch.inference_mode()
def embed(model, waves): return model.embed(waves).numpy()


def shots(model, classes=("desk", "hall", "yard"), each=6, seed=0):
    "Seconds of made places, told apart by their tone: waves, labels, groups."
    dice, t = np.random.default_rng(seed), np.arange(16000) / 16000
    labels, groups = np.repeat(classes, each), np.arange(len(classes) * each) // 2
    waves = [0.3 * np.sin(2 * np.pi * 300 * 3 ** list(classes).index(n) * t + dice.uniform(0, 6)) + 0.03 * dice.normal(size=16000) for n in labels]
    return torch.tensor(np.array(waves), dtype=torch.float32), labels, groups


def fitted(model, method="logistic", standardise=True, normalise=False, **how):
    waves, labels, groups = shots(model)
    x = embed(model, waves)
    return FewShotClassifier(method, standardise=standardise, **how).fit(directions(x) if normalise else x, labels, groups)


def recogniser(model):
    waves, labels, groups = shots(model)
    made = Recogniser(model)
    made.learn(Shots(embed(model, waves), labels, groups.astype(str), groups))
    return made


def facts_of(path): return json.loads(re.search(r'application/json">(.*?)</script>', Path(path).read_text())[1])


def near(found, wanted, within):
    "Largest difference within a share of the largest value, or of 1."
    found, wanted = np.asarray(found), np.asarray(wanted)
    return np.abs(found - wanted).max() <= within * max(1, np.abs(wanted).max())


# JavaScript.

VARIETY = [(name, 2, "cosine", "layer") for name in VARIANTS] + [("cpm6k", bands, head, norm) for bands, head, norm in ((1, "cosine", "batch"), (3, "cosine", "none"), (5, "conv", "layer"))]
VARIETY += [(dict(base_channels=16, channels_multiplier=1.0, expansion_rate=2.0), 1, "cosine", "layer")]  # no transition: every block has its shortcut


def test_javascript_hears_and_answers_as_torch_does(ask):
    models = [student(v, b, h, n, seed=i) for i, (v, b, h, n) in enumerate(VARIETY)]
    waves = [sounds(1)[0], 0.0005 * sounds(1, 1.0, 1)[0], torch.zeros(16000), sounds(1, 1.378, 2)[0]]
    facts = [deploy._facts(m, None, "t") for m in models]
    for model, answers in zip(models, ask([dict(act="student", facts=f, waves=[packed(w) for w in waves]) for f in facts])):
        spread = embed(model, torch.stack(waves[:3])).std(0)
        assert (spread > 0.02 * spread.max()).mean() > 0.5, "this model hardly listens"
        with torch.inference_mode():
            page = deploy._halved(model)[0]
            for wave, found in zip(waves, answers):
                assert near(unpacked(found["logmel"]), page.frontend(wave[None]).flatten(), 2e-5), model.backbone.config
                assert near(unpacked(found["embedding"]), page.embed(wave[None])[0], 1e-4) and near(unpacked(found["logits"]), page(wave[None])[0], 5e-4), model.backbone.config


def test_javascript_hears_through_any_logmel(ask):
    ears = [dict(sample_rate=16000, n_mels=64, fmin=50.0, fmax=8000.0), dict(sample_rate=32000, n_mels=128)]
    models = [Student(LogMel(**ear), CPMobile("cpm6k"), 2).eval() for ear in ears]
    waves = [sounds(1, m.sample_rate / 16000) for m in models]
    answers = ask([dict(act="student", facts=deploy._facts(m, None, "t"), waves=[packed(w)]) for m, w in zip(models, waves)])
    for model, wave, (found,) in zip(models, waves, answers):
        assert near(unpacked(found["logmel"]), model.frontend(wave).flatten(), 2e-5) and near(unpacked(found["embedding"]), embed(deploy._halved(model)[0], wave)[0], 1e-4)


HOW = [("logistic", True, True), ("logistic", False, False), ("mean", True, False), ("mean", False, True)]


def test_javascript_classifies_as_python_does(ask):
    model, asked = student(bands=2), embed(student(bands=2), sounds(8))
    made = [deploy._Judging(fitted(model, m, s, n), n) for m, s, n in HOW]
    answers = ask([dict(act="classify", head=deploy._packed_classifier(j), x=packed(asked, "<f8"), d=asked.shape[1]) for j in made])
    for judging, found in zip(made, answers):
        wanted = judging.answers(asked)
        assert near([f["shares"] for f in found], wanted["probabilities"], 1e-4) and near([f["novelty"] for f in found], wanted["novelty"], 1e-4)


def problems():
    "Shots in all the shapes that decide how a temperature and a threshold are found."
    dice = np.random.default_rng(3)
    def some(sizes, groups, d=12): return [(4 * dice.normal(size=d) + dice.normal(size=(n, d))) for n in sizes], groups
    for sizes, groups in ((6, 6, 6), lambda i: i // 2), ((9, 4), lambda i: i), ((5, 5), lambda i: 0 if i < 5 else 1), ((1, 1, 1), lambda i: i), ((40, 30, 25), lambda i: i // 3), ((300, 300), lambda i: i // 10):
        parts, group = some(sizes, groups)
        yield np.concatenate(parts), np.repeat([f"c{k}" for k in range(len(sizes))], sizes), np.array([group(i) for i in range(sum(sizes))])


def test_javascript_learns_class_means_as_python_does(ask):
    cases = [(x, y, g, s, n) for x, y, g in problems() for s, n in ((True, True), (False, False))]
    jobs = [dict(act="fit", x=packed(x, "<f8"), d=12, names=y.tolist(), groups=[f"g{v}" for v in g], how=dict(standardise=s, normalise=n), asked=packed(x[:9] + 1, "<f8")) for x, y, g, s, n in cases]
    for (x, y, g, s, n), found in zip(cases, ask(jobs)):
        clf = FewShotClassifier("mean", standardise=s).fit(directions(x) if n else x, y, g)
        wanted = deploy._Judging(clf, n).answers(x[:9] + 1)
        assert found["classes"] == clf.classes_.tolist() and found["calibrated"] == clf.calibrated_
        assert found["temperature"] == pytest.approx(clf.temperature_, rel=2e-3) and found["threshold"] == pytest.approx(clf.threshold_, rel=1e-6)
        assert near([f["shares"] for f in found["said"]], wanted["probabilities"], 5e-3) and near([f["novelty"] for f in found["said"]], wanted["novelty"], 1e-6)


def test_javascript_resamples_and_judges_as_python_does(ask):
    rates, wave = (16000, 48000, 44100, 22050, 8000), sounds(1, 0.5)[0]
    model = recogniser(student())
    x = embed(student(), sounds(3))
    results = [dict(zip(("shares", "novelty"), (s.tolist(), float(n)))) for s, n in zip(*deploy._judging(model, student()).answers(x).values())]
    *found, judged = ask([*(dict(act="resample", wave=packed(wave), rate=r) for r in rates), dict(act="judge", results=results, classes=model.classifier.classes_.tolist(), how=dict(sure=0.5, limit=1))])
    for rate, out in zip(rates, found): assert near(unpacked(out), resample(wave, rate), 1e-5), rate
    wanted = [model.judge(v) for v in x][-1]
    assert judged["word"] == wanted.word and near(judged["shares"], list(wanted.shares.values()), 1e-9) and judged["novelty"] == pytest.approx(wanted.novelty)


# The graph.

@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    "Two exports that differ in all there is: name -> (student, what was given, file, table)."
    folder, out = tmp_path_factory.mktemp("graphs"), {}
    three, small = student(dict(base_channels=8, channels_multiplier=1.5, expansion_rate=2.0), 3, "conv", classes=False), load_pretrained("cpm6k")
    three.train()
    for name, model, given in (("own", three, None), ("enrolled", small, recogniser(small))):
        out[name] = model, given, folder / f"{name}.onnx", export_onnx(model, folder / f"{name}.onnx", given)
    return out


def run(path, waves):
    session = onnxruntime.InferenceSession(path)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"waveform": waves.numpy()})))


@pytest.mark.parametrize("name", ["own", "enrolled"])
def test_a_graph_answers_as_the_student_does_at_any_batch_length_and_level(graphs, name):
    model, given, path, _ = graphs[name]
    model, judging = copy.deepcopy(model).eval(), deploy._judging(given, model)
    for batch, seconds, gain in ((1, 1, 1.0), (2, 2.3, 1.0), (5, 1.01, 0.001), (3, 10, 0.0)):
        waves = gain * sounds(batch, seconds, batch)
        found, wanted = run(path, waves), deploy._wanted(model, judging, waves)
        assert found.keys() == wanted.keys() and all(found[k].shape == wanted[k].shape for k in found)
        assert near(found["logmel"], wanted["logmel"], 5e-5) and near(found["embedding"], wanted["embedding"], 2e-4)
        assert all(near(found[k], wanted[k], 2e-3) for k in found)


@pytest.mark.parametrize("head, norm, bands", [("cosine", "layer", 1), ("cosine", "batch", 2), ("cosine", "none", 5), ("conv", "layer", 3)])
@pytest.mark.parametrize("method, standardise, normalise", HOW)
def test_what_is_traced_answers_as_the_student_does(head, norm, bands, method, standardise, normalise):
    model, waves = student(bands=bands, head=head, norm=norm), sounds(3, 1.2)
    for judging in (None, deploy._Judging(fitted(model, method, standardise, normalise), normalise)):
        graph = deploy._Graph(copy.deepcopy(model), judging).eval()
        with torch.inference_mode(): found = dict(zip(graph.names, graph(waves)))
        wanted = deploy._wanted(model, judging, waves)
        assert found.keys() == wanted.keys() and all(near(found[k], wanted[k], 1e-3) for k in found)


def test_a_graph_is_one_file_of_opset_18_that_says_what_it_is(graphs):
    for name, (model, given, path, table) in graphs.items():
        made = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(made)
        facts = {p.key: p.value for p in made.metadata_props}
        assert [o.version for o in made.opset_import if o.domain in ("", "ai.onnx")] == [18] and "STFT" in {n.op_type for n in made.graph.node}
        assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in made.graph.initializer) and list(path.parent.glob(f"*{name}*")) == [path]
        assert not {"BatchNormalization"} & {n.op_type for n in made.graph.node}
        assert json.loads(facts["sample_rate"]) == 16000 and facts["fingerprint"] == deploy.model_fingerprint(model) and json.loads(facts["bands"]) == model.bands
        assert table.bytes.iloc[0] == path.stat().st_size and list(table.index) == ["loud", "-60 dB", "silence"] and (table.time_over_torch > 0).all()
        shape = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*made.graph.input, *made.graph.output)]
        assert shape[0] == ["batch", "time"] and all(s[0] == "batch" for s in shape)
    about = {n: {p.key: p.value for p in onnx.load(g[2]).metadata_props} for n, g in graphs.items()}
    assert json.loads(about["enrolled"]["classes"]) == ["desk", "hall", "yard"] and json.loads(about["enrolled"]["limit"]) == 1 and json.loads(about["own"]["classes"]) is None
    assert about["enrolled"]["card"] == "contrastasc.pretrained.model_card('cpm6k')" and "Apache-2.0" in about["enrolled"]["licence"] and about["own"]["card"].startswith("none")


def test_a_student_in_training_is_exported_at_rest_and_left_in_training(graphs):
    model, _, path, _ = graphs["own"]
    assert model.training and model.frontend.training
    wave = sounds(2)
    assert np.array_equal(run(path, wave)["logmel"], run(path, wave)["logmel"]) and near(run(path, wave)["logmel"], LogMel().eval()(wave), 5e-5)


def test_a_graph_that_answers_otherwise_is_not_kept(graphs, tmp_path, monkeypatch):
    model, _, path, _ = graphs["own"]
    data, there = path.read_bytes(), tmp_path / "there.onnx"
    there.write_text("before")
    other = copy.deepcopy(model)
    other.backbone.in_c[0][0].weight.data *= 1.05
    monkeypatch.setattr(deploy, "_trace", lambda *_: data)
    with pytest.raises(ExportError, match="the graph's embedding differs .* nothing was written"): export_onnx(other, there)
    with pytest.raises(ExportError, match="shape"): export_onnx(model.read_as(4), tmp_path / "new.onnx")
    broken = copy.deepcopy(model)
    broken.backbone.in_c[0][0].weight.data[:] = torch.nan
    with pytest.raises(ExportError, match="differs from the model's by nan"): export_onnx(broken, tmp_path / "new.onnx")
    assert there.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["there.onnx"]
    with pytest.raises(OSError, match="new.onnx"): export_onnx(model, there / "new.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=package + r'.*pip install "contrastasc\[deploy\]"'): export_onnx(student(), tmp_path / "s.onnx")
    assert not any(tmp_path.iterdir())
    export_page(student(), tmp_path / "s.html")


class Deaf(nn.Module):
    sample_rate = 16000
    def forward(self, x): return x


def test_what_cannot_be_exported_is_said_in_one_sentence(tmp_path):
    model = student()
    empty, other, elsewhere = Recogniser(model), recogniser(student(seed=1)), recogniser(student())
    elsewhere.encoder = Student(LogMel(fmax=8000), elsewhere.encoder.backbone).eval()
    for act, suffix in ((export_page, ".html"), (export_onnx, ".onnx")):
        for given, words in ((FewShotClassifier(), "has learnt nothing"), (fitted(student("cpm12k")), "fitted on 40 dimensions, this student's embeddings have 32"), ("desk", "not str"), (empty, "enrol at least two scenes"), (other, "another encoder"), (recogniser(model.read_as(2)), "another encoder"), (elsewhere, "another encoder")):
            with pytest.raises(ExportError, match=words): act(model, tmp_path / f"s{suffix}", given)
        with pytest.raises(ExportError, match="not BEATs: distil it"): act(BEATs(BEATsConfig(encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=32, encoder_attention_heads=2, embed_dim=32)), tmp_path / f"s{suffix}")
        with pytest.raises(ExportError, match="not through Deaf"): act(Student(Deaf(), CPMobile("cpm6k")), tmp_path / f"s{suffix}")
    with pytest.raises(ExportError, match="must end in .onnx .* or .html"): export_model(model, tmp_path / "s.tflite")
    with pytest.raises(ValueError, match="do not fit into 16 bits"):
        model.backbone.in_c[0][0].weight.data *= 1e9; export_page(model, tmp_path / "s.html")
    assert not any(tmp_path.iterdir())


# The page as a file.

def test_a_page_is_one_file_without_an_address(tmp_path):
    model = load_pretrained("cpm126k")
    page = export_page(model, tmp_path / "s.html", fitted(model), title="A </script><b>title</b> {{code}} & more").read_text()
    assert len(page.encode()) < 1_000_000 and [p.name for p in tmp_path.iterdir()] == ["s.html"]
    assert not re.search(r"https?:|//\w+\.\w|\bsrc=|@import|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon", re.sub(r'"[A-Za-z0-9+/=]{200,}"', "", page))
    assert "default-src 'none'" in page and "connect-src" not in page and page.count("</script>") == 2 and "<b>title" not in page and page.count("<title>") == 1
    assert facts_of(tmp_path / "s.html")["title"].startswith("A </script>") and str(tmp_path) not in page and "/home" not in page


def test_the_weights_in_a_page_are_those_that_ship(tmp_path):
    for name in VARIANTS:
        model = load_pretrained(name)
        facts = facts_of(export_page(model, tmp_path / "s.html"))
        held = safetensors.torch.load(base64.b64decode(facts["weights"]))
        shipped = safetensors.torch.load_file(Path(deploy.__file__).parent.parent / "data" / name / "weights.safetensors")
        assert all(torch.equal(v, shipped[f"backbone.{k}"]) and v.dtype == shipped[f"backbone.{k}"].dtype for k, v in held.items()) and len(held) > 50
        assert facts["fingerprint"] == deploy.model_fingerprint(model) and facts["classes"] == model.classes and (tmp_path / "s.html").stat().st_size < 600_000


def test_too_much_does_not_fit_and_shots_are_thinned_evenly(tmp_path):
    model = load_pretrained("cpm126k")
    dice = np.random.default_rng(0)
    x, y = dice.normal(size=(4000, 336)), np.array(["rare"] * 3 + ["often"] * 3997)
    many = FewShotClassifier("mean", calibrate=False).fit(x, y, np.arange(4000) // 5)
    facts = facts_of(export_page(model, tmp_path / "s.html", many))
    names = facts["shots"]["names"]
    assert (tmp_path / "s.html").stat().st_size < 1_000_000 and names.count("rare") >= 1 and 300 < names.count("often") < 1000
    before = (tmp_path / "s.html").read_bytes()
    wide = Student(LogMel(), CPMobile(dict(base_channels=64, channels_multiplier=2.3, expansion_rate=3.0)))
    with pytest.raises(ExportError, match="export a smaller student"): export_page(wide, tmp_path / "s.html")
    assert (tmp_path / "s.html").read_bytes() == before


def test_what_was_enrolled_is_exported_from_store_recogniser_and_widget(tmp_path):
    model = student(bands=2)
    waves, labels, _ = shots(model, ("desk", "hall", "yard"), 4)
    with EnrollmentStore(tmp_path / "e.sqlite", model) as store:
        store.add([torch.cat([w, w]) for w in waves], labels.tolist())
        export_page(model, tmp_path / "store.html", store)
    enroller = LiveEnroller(model, tmp_path / "e.sqlite")
    assert enroller.export(tmp_path / "widget.html") == tmp_path / "widget.html"
    one, two = (facts_of(tmp_path / f"{n}.html") for n in ("store", "widget"))
    assert one["judging"]["classes"] == two["judging"]["classes"] == ["desk", "hall", "yard"] and len(one["shots"]["names"]) == 24
    assert hashlib.sha256(one["judging"]["weight"].encode()).digest() == hashlib.sha256(two["judging"]["weight"].encode()).digest() and one["judging"]["normalise"] and one["judging"]["temperature"] == two["judging"]["temperature"] != 1
    with EnrollmentStore(tmp_path / "e.sqlite", student(seed=1)) as other:
        with pytest.raises(ValueError, match="recompute"): export_page(student(seed=1), tmp_path / "other.html", other)
    enroller.store.close()
    assert not (tmp_path / "other.html").exists()


# The page in a browser.

P = "document.querySelector('.cx').page"


def see(page, what): return page.evaluate(f"() => {{ const x = {P}; return {what}; }}")


def until(page, what, seconds=30):
    "Wait in Python: the page's own policy forbids what Playwright would do inside it."
    end = time.time() + seconds
    while not page.evaluate(f"() => {{ const x = document.querySelector('.cx')?.page; return Boolean(x && ({what})); }}"):
        assert time.time() < end, f"{what} did not come true"
        time.sleep(0.05)


def press(page, name): page.get_by_role("button", name=name).click()


def opened(chromium, path, width=900, **options):
    page = window(chromium, width, 1000, **options)
    page.goto(path if "://" in str(path) else f"file://{path}"); until(page, "true")
    return page


def give(page, path, which="input[accept='audio/*']"): page.locator(which).set_input_files(path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    "Files: a page with three places, one with the student's own classes, one that knows nothing; sounds to give them."
    folder = tmp_path_factory.mktemp("pages")
    model = load_pretrained("cpm12k")
    export_page(model, folder / "three.html", recogniser(model)); export_page(model, folder / "own.html"); export_page(student(classes=False), folder / "none.html")
    waves, labels, _ = shots(model, seed=5)
    def put(name, wave, rate=16000): sf.write(folder / name, (wave if rate == 16000 else resample(wave, 16000, rate)).numpy(), rate, subtype="PCM_16")
    put("hall.wav", waves[labels == "hall"].flatten()); put("desk.wav", waves[labels == "desk"].flatten()); put("short.wav", waves[0][:4000])
    put("walk.wav", torch.cat([waves[labels == n][:k].flatten() for n, k in (("desk", 3), ("yard", 4))]), 48000); put("hall48.wav", waves[labels == "hall"].flatten(), 48000)
    (folder / "page.wav").write_text("<html>no sound</html>")
    return folder, model


@pytest.fixture(scope="module")
def chromium(pages):
    with browser(*microphone(pages[0] / "walk.wav")) as program: yield program


@needs_browser
def test_a_file_is_heard_second_by_second_as_in_python(pages, chromium):
    folder, model = pages
    page = opened(chromium, folder / "three.html")
    assert see(page, "x.apart") < 1e-4 and see(page, "x.doubt.textContent + x.warning.textContent") == "" and see(page, "x.root.innerText").count("desk") >= 1
    give(page, folder / "hall.wav"); until(page, "x.state === 'file'")
    wave = torch.tensor(see(page, "[...x.sound]"), dtype=torch.float32)
    assert near(wave, sf.read(folder / "hall.wav")[0], 1e-4)
    wave, judge = wave.unflatten(0, (-1, 16000)), recogniser(model)
    said = [judge.judge(v) for v in embed(model, wave)]
    assert near(see(page, "x.heard.map((s) => [...s.embedding])"), embed(model, wave), 2e-4)
    for i in range(6):
        page.get_by_label("second of the file").fill(str(i))
        assert see(page, "x.word.textContent") == said[i].word and near(see(page, "x.verdict(x.heard.slice(Math.max(0, x.shown - 2), x.shown + 1)).shares"), list(said[i].shares.values()), 1e-3)
    assert "6 s: hall as a whole" in page.locator(".cx").inner_text() and page.locator(".cp-bars .cp-track").count() == 3
    give(page, folder / "hall48.wav"); until(page, "x.called === 'hall48.wav' && x.state === 'file'")
    moved = np.abs(np.array(see(page, "x.heard.map((s) => [...s.embedding])")) - embed(model, wave)).mean() / embed(model, wave).std()
    assert moved < 0.05 and see(page, "x.verdict(x.heard).word") == "hall"
    assert page.strangers == [] and page.faults == []
    page.close()


@needs_browser
def test_the_microphone_is_heard_and_two_new_places_are_learnt_by_keyboard_and_kept(pages, chromium):
    folder, _ = pages
    page = opened(chromium, folder / "none.html")
    assert "teach it two places" in page.locator(".cx").inner_text()
    page.keyboard.press("Tab"); page.keyboard.press("Enter")
    until(page, "x.heard.filter(Boolean).length >= 3 && x.state === 'listening'")
    assert see(page, "x.media.getAudioTracks()[0].getSettings().autoGainControl") is False and see(page, "x.took.length") >= 3
    page.get_by_label("seconds to record").select_option("3")
    page.get_by_label("name of the place").fill("first"); page.get_by_role("button", name="Keep the last seconds").press("Enter")
    assert see(page, "x.head") is None and "Teach it a second" in page.locator(".cx").inner_text()
    page.get_by_label("name of the place").fill("second"); press(page, "● Record")
    until(page, "x.clips.length === 2")
    assert see(page, "x.clips.map((c) => [c.name, c.x.length, c.from])") == [["first", 3, "microphone"], ["second", 3, "microphone"]]
    assert see(page, "x.word.textContent") in ("first", "second", "not sure", "unknown") and see(page, "x.head.classes") == ["first", "second"]
    press(page, "Stop")
    assert see(page, "x.media") is None and see(page, "x.state") == "off"
    page.reload(); until(page, "x.clips.length === 2 && x.head.classes.length === 2")
    page.get_by_role("button", name="forget first").click()
    assert see(page, "x.clips.map((c) => c.name)") == ["second"] and see(page, "x.head") is None
    assert page.strangers == [] and page.faults == []
    page.evaluate("() => localStorage.clear()"); page.close()


@needs_browser
def test_the_word_changes_with_the_place(pages, chromium):
    page = opened(chromium, pages[0] / "three.html")
    words = "x.heard.map((s, i) => x.verdict(x.heard.slice(Math.max(0, i - 2), i + 1))?.word)"
    press(page, "Listen"); until(page, f"((words) => words.includes('desk') && words.indexOf('yard', words.indexOf('desk')) > 0)({words})")  # a busy machine may swallow a second; the walk begins anew
    assert "hall" not in see(page, words)
    press(page, "Stop")
    page.close()


@needs_browser
def test_what_is_learnt_joins_what_came_and_travels_as_a_file(pages, chromium, tmp_path):
    folder, model = pages
    page = opened(chromium, folder / "three.html")
    give(page, folder / "desk.wav"); until(page, "x.state === 'file'")
    for name, words in (("", "a name first"), ("Unknown", "No place can be called")):
        page.get_by_label("name of the place").fill(name); press(page, "Learn this file")
        assert words in see(page, "x.trouble.textContent") and see(page, "x.clips.length") == 0
    page.get_by_label("name of the place").fill("loft"); press(page, "Learn this file")
    x = np.concatenate([recogniser(model).classifier._shots[0], directions(embed(model, torch.tensor(sf.read(folder / "desk.wav", dtype="float32")[0]).unflatten(0, (-1, 16000))))])
    y, g = np.append(recogniser(model).classifier._shots[1], ["loft"] * 6), np.append(recogniser(model).classifier._shots[2], [99] * 6)
    clf = FewShotClassifier("mean", standardise=True).fit(x, y, g)
    assert see(page, "x.head.classes") == clf.classes_.tolist() and see(page, "x.head.threshold") == pytest.approx(clf.threshold_, rel=1e-2)
    assert near(see(page, "x.heard.map((s) => s.result.shares)"), clf.predict_proba(x[-6:]), 2e-2) and "4 places apart by the means of 24 seconds, 6 of them" in page.locator(".cx").inner_text()
    with page.expect_download() as got: press(page, "Save as a file")
    got.value.save_as(tmp_path / "learnt.json")
    page.evaluate("() => localStorage.clear()"); page.reload(); until(page, "x.clips.length === 0")
    give(page, tmp_path / "learnt.json", "input[accept*=json]"); until(page, "x.clips.length === 1 && x.head.classes.length === 4")
    give(page, tmp_path / "learnt.json", "input[accept*=json]"); time.sleep(0.3)
    assert see(page, "x.clips.length") == 1, "the same clip twice"
    saved = json.loads((tmp_path / "learnt.json").read_text())
    for change, words in ((dict(model="x"), "another model"), (dict(clips=[saved["clips"][0] | dict(x=["AAAA"])]), "damaged"), (dict(bands=9), "another model")):
        (tmp_path / "bad.json").write_text(json.dumps(saved | change)); give(page, tmp_path / "bad.json", "input[accept*=json]"); until(page, f"x.trouble.textContent.includes('{words}')")
    give(page, folder / "page.wav", "input[accept*=json]"); until(page, "x.trouble.textContent.includes('page.wav is not a file that this page has saved')")
    assert see(page, "x.clips.length") == 1 and page.strangers == [] and page.faults == []
    page.evaluate("() => localStorage.clear()"); page.close()


@needs_browser
def test_what_is_no_sound_is_said_and_the_page_goes_on(pages, chromium):
    folder, _ = pages
    page = opened(chromium, folder / "own.html")
    for name, words in (("page.wav", "page.wav cannot be read as sound"), ("short.wav", "short.wav has 0.3 s of sound; a second is the least")):
        give(page, folder / name); until(page, f"x.trouble.textContent.includes('{words}')")
        assert see(page, "x.state") == "off"
    page.evaluate("""(text) => {
        const given = new DataTransfer(); given.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "dropped.wav"));
        document.querySelector(".cx").dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true })); }""", base64.b64encode((folder / "desk.wav").read_bytes()).decode())
    until(page, "x.state === 'file' && x.called === 'dropped.wav'")
    assert see(page, "x.trouble.textContent") == "" and page.locator(".cp-bars .cp-track").count() == 10 and "43 scenes it was trained on" in page.locator(".cx").inner_text()
    assert see(page, "x.heard[0].result.shares.length") == 43
    page.close()


@needs_browser
def test_a_page_that_computes_otherwise_says_so(pages, chromium):
    folder, _ = pages
    facts = facts_of(folder / "own.html")
    probe = np.frombuffer(base64.b64decode(facts["probe"]), np.float32) * 1.05
    (folder / "wrong.html").write_text((folder / "own.html").read_text().replace(facts["probe"], packed(probe)))
    page = opened(chromium, folder / "wrong.html")
    assert "do not rely on its answers" in see(page, "x.doubt.textContent")
    page.close()


@needs_browser
def test_nothing_can_leave_the_page(pages, chromium):
    page = opened(chromium, pages[0] / "own.html")
    for attempt in ("fetch('https://example.invalid/x')", "import('https://example.invalid/x.js')", "new Promise((go, no) => { const i = new Image(); i.onload = go; i.onerror = no; i.src = 'https://example.invalid/x.png'; })"):
        assert page.evaluate(f"() => {attempt}.then(() => 'left').catch(() => 'kept')") == "kept"
    page.evaluate("() => navigator.sendBeacon('https://example.invalid/x', 'x')"); time.sleep(0.3)
    assert page.strangers == []
    page.close()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_telephone_in_light_and_dark(pages, chromium, scheme):
    page = opened(chromium, pages[0] / "three.html", 380, color_scheme=scheme)
    give(page, pages[0] / "hall.wav"); until(page, "x.state === 'file'")
    page.locator("summary").click()
    assert page.evaluate("() => document.documentElement.scrollWidth") == 380
    fore, back = ([int(v) for v in re.findall(r"\d+", page.evaluate(f"() => getComputedStyle(document.body).{p}"))[:3]] for p in ("color", "backgroundColor"))
    assert (np.mean(fore) > np.mean(back)) == (scheme == "dark") and abs(np.mean(fore) - np.mean(back)) > 150
    unnamed = page.evaluate("() => [...document.querySelectorAll('button, input, select, canvas, meter, progress')].filter((e) => !(e.hidden || e.textContent.trim() || e.getAttribute('aria-label'))).map((e) => e.outerHTML)")
    assert unnamed == [] and page.faults == []
    page.close()


@pytest.fixture(scope="module")
def served(pages):
    "The same files over http, and one that has a page in a frame as a notebook shows it."
    folder = pages[0]
    (folder / "frame.html").write_text(f'<iframe srcdoc="{html.escape((folder / "three.html").read_text())}" allow="microphone" width=900 height=900></iframe>')
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@needs_browser
def test_a_page_in_a_notebooks_frame_hears_the_microphone(served, chromium):
    page = window(chromium, 1000, 1000)
    page.goto(f"http://127.0.0.1:{served}/frame.html")
    frame = page.frames[1]
    frame.get_by_role("button", name="Listen").click()
    end = time.time() + 20
    while not frame.evaluate(f"() => {P}.heard.filter(Boolean).length >= 2"): assert time.time() < end; time.sleep(0.1)
    assert frame.evaluate(f"() => {P}.state") == "listening" and page.strangers == [] and page.faults == []
    page.close()


YES, FAKE = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"


@pytest.fixture
def another(chromium):
    "A browser with other flags."
    made = []
    def launch(*flags):
        made.append(chromium.browser_type.launch(executable_path=CHROMIUM, args=[*_FLAGS, *flags]))
        return made[-1]
    yield launch
    for program in made: program.close()


@needs_browser
@pytest.mark.parametrize("state, flags, words", [("denied", [FAKE, "--deny-permission-prompts"], "may not use the microphone"), ("no microphone", [YES], "There is no microphone")])
def test_without_a_microphone_the_page_says_why_and_takes_files(pages, another, state, flags, words):
    page = opened(another(*flags), pages[0] / "own.html")
    press(page, "Listen"); until(page, f"x.state === '{state}'")
    assert words in page.locator(".cp-state").inner_text() and see(page, "x.switch.disabled") is False
    give(page, pages[0] / "desk.wav"); until(page, "x.state === 'file'")


@needs_browser
def test_plain_http_is_told_from_a_program_without_microphones(pages, served, another):
    page = opened(another("--host-resolver-rules=MAP notebook.test 127.0.0.1"), f"http://notebook.test:{served}/own.html")
    press(page, "Listen"); until(page, "x.state === 'insecure'")
    assert "plain http" in page.locator(".cp-state").inner_text()
    page.evaluate("() => Object.defineProperty(window, 'isSecureContext', { value: true })")
    press(page, "Listen"); until(page, "x.state === 'absent'")
    give(page, pages[0] / "desk.wav"); until(page, "x.state === 'file'")
