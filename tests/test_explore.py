"The explorer: what it answers in Python, and the whole of it in a browser."
import json
import time

import numpy as np
import pandas as pd
import pytest

from contrastasc.explore import EmbeddingExplorer, clip_packet, export_html, guess_left_out, judged, kept_by, told
from contrastasc.project import directions
from contrastasc.scenes import SceneSet

from .lab import CHROMIUM, browser, jupyter, kernel, open_lab, run_all, voila, window, write_notebook

SET_UP = '''
import json, numpy as np
from contrastasc.explore import EmbeddingExplorer, export_html
from contrastasc.scenes import SceneSet

def made(n=240, spaces=3, d=8):
    dice, labels = np.random.default_rng(0), np.arange(n) % 4
    names = ["park", "bus", "metro_station", "tram"]
    time = np.arange(8000) / 16000
    waves = [0.3 * np.sin(2 * np.pi * (200 + 400 * c) * time + dice.uniform(0, 6)).astype(np.float32) for c in labels]
    scenes = SceneSet.from_arrays(waves, [names[c] for c in labels], names, groups=[f"g{i // 8}" for i in range(n)],
                                  device=[f"d{i % 3}" for i in range(n)], city=["oslo" if i % 2 else "rome" for i in range(n)])
    centres = 4 * np.eye(d)[:4]
    return scenes, {f"space {s}": (centres[labels] + (1 + s) * dice.normal(size=(n, d))).astype(np.float32) for s in range(spaces)}
'''
exec(SET_UP)


@pytest.fixture(scope="module")
def small():
    scenes, spaces = made(80, 2)
    explorer = EmbeddingExplorer(spaces, scenes, method="pca", columns=dict(height=np.arange(80.0)))
    explorer.worker.join()
    return explorer


def ask(explorer, **message):
    "What the page would be told."
    sent = []
    before, explorer.send = explorer.send, lambda content, buffers=None: sent.append((content, buffers))
    try: explorer._asked(dict(id=1) | message)
    finally: explorer.send = before
    return sent[0]


def test_guesses_leave_the_clip_out():
    x = directions(np.random.default_rng(0).normal(size=(30, 5)))
    labels = np.arange(30) % 3
    want = []
    for i in range(30):
        others = np.arange(30) != i
        means = directions([x[others & (labels == c)].mean(0) for c in range(3)])
        want.append((means @ x[i]).argmax())
    assert (guess_left_out(x, labels) == want).all()


def test_the_table_holds_what_can_colour_a_point(small):
    assert {"scene", "device", "city", "group", "height", "guess, space 0", "right, space 1", "margin, space 0", "distortion, space 1"} <= set(small.table)
    assert set(small.table["right, space 0"]) <= {"right", "wrong"} and len(small.table) == 80
    assert "known" not in told(small.scenes) or set(told(small.scenes).known) == {"seen", "unseen"}


def test_predictions_may_be_names_or_numbers():
    scenes, spaces = made(40, 1)
    by_number = judged(spaces, scenes.labels, scenes.classes, {"space 0": scenes.labels})
    by_name = judged(spaces, scenes.labels, scenes.classes, {"space 0": scenes.frame.scene.to_numpy()})
    assert (by_number["right, space 0"] == "right").all() and by_number.equals(by_name)
    with pytest.raises(ValueError, match="3 predictions, but there are 40"): judged(spaces, scenes.labels, scenes.classes, {"space 0": [0, 1, 2]})


def test_classes_without_a_clip_are_left_out():
    scenes, spaces = made(40, 1)
    some = np.flatnonzero(scenes.labels != 1)
    fewer, x = scenes.subset(some), spaces["space 0"][some]
    explorer = EmbeddingExplorer({"x": x}, fewer, method="pca", predictions={"x": fewer.labels})
    assert len(fewer.classes) == 4 and explorer.classes == [c for c in scenes.classes if c != scenes.classes[1]]
    assert (np.asarray(explorer.classes)[explorer.labels] == fewer.frame.scene).all() and (explorer.table["right, x"] == "right").all()
    explorer.add([np.zeros(16000)], [scenes.classes[0]], {"x": x[:1]})
    assert explorer.table["guess, x"].iloc[-1] in explorer.classes


@pytest.mark.parametrize("given, words", [(dict(columns=dict(height=[1, 2])), "column 'height' has 2 values"),
                                          (dict(predictions={"x": [0]}), "space 'x' has 1 predictions")])
def test_what_is_given_must_have_a_row_for_each_clip(given, words):
    scenes, spaces = made(40, 1)
    with pytest.raises(ValueError, match=words): EmbeddingExplorer({"x": spaces["space 0"]}, scenes, **given)


def test_filters_are_pandas_queries_and_say_what_is_wrong(small):
    assert (kept_by(small.table, "city == 'oslo' and height > 10") == ((np.arange(80) % 2 == 1) & (np.arange(80) > 10))).all()
    assert kept_by(small.table, "  ").all()
    for query in ("cty == 1", "city = 'oslo'", "height + 1"):
        with pytest.raises(ValueError, match="the filter"): kept_by(small.table, query)
    facts, _ = ask(small, ask="filter", query="device == 'd0'")
    assert "27 of 80" in facts["note"] and np.frombuffer(small.kept, np.uint8).sum() == 27
    assert "cannot be read" in ask(small, ask="filter", query="((")[0]["error"]
    assert ask(small, ask="filter", query="")[0]["note"] == "" and small.kept == b""


def test_a_clip_arrives_as_sound_and_picture(small):
    facts, (sound, picture) = ask(small, ask="clip", clip=5)
    wave = np.frombuffer(sound, np.int16) / 32767
    mel = np.frombuffer(picture, np.uint8).reshape(facts["shape"])
    assert len(wave) == 8000 and np.abs(wave).max() == pytest.approx(1, abs=1e-4) and facts["shape"][0] == 256
    band = dict(facts["ticks"])
    loudest = mel.sum(1).argmax()
    assert band[500] < loudest < band[1000]
    about = facts["about"]
    assert about["scene"] == "bus" and about["device"] == "d2" and about["position in the recording"] == "0 to 0.5 s" and about["clip"]
    silent, (sound, _) = clip_packet(np.zeros(8000), {})
    assert not any(sound) and silent["seconds"] == 0.5


def test_selections_go_both_ways(small):
    heard = []
    small.on_select(heard.append)
    ask(small, ask="select", clips=[3, 7])
    assert small.selection.tolist() == [3, 7] and heard[-1].tolist() == [3, 7]
    assert small.selected_table().index.tolist() == [3, 7] and small.selected_table().height.tolist() == [3, 7]
    small.select([11])
    assert small.selection.tolist() == [11]
    with pytest.raises(ValueError, match="clip 99 is not on the map"): small.select([99])
    small.select([])
    assert len(small.selection) == 0


def test_shots_teach_a_classifier_in_every_space(small):
    shots = ask(small, ask="draw", k=3)[0]["shots"]
    assert np.bincount(small.labels[shots]).tolist() == [3] * 4
    facts, _ = ask(small, ask="teach", shots=shots)
    assert [t for t, _, _ in small.guesses] == ["space 0", "space 1"] and all(n == 68 for _, _, n in small.guesses)
    assert small.guesses[0][1] > 0.7 and "right" in facts["note"]
    assert (small.table["right, space 0 after shots"][shots] == "not asked").all()
    assert small.teach(shots[:1]) == {} and not any("after shots" in n for n in small.table)


def test_new_maps_replace_those_being_made():
    scenes, spaces = made(60, 2)
    explorer = EmbeddingExplorer(spaces, scenes)
    first = explorer.worker
    explorer.method = "tsne"
    explorer.worker.join(); first.join()
    assert {m.method for m in explorer.maps.values()} == {"tsne"} and not explorer.busy and set(explorer.errors) == set(spaces)
    assert [row[0] for row in explorer.quality][:2] == ["trustworthiness", "continuity"]


def test_newcomers_keep_colour_selection_and_numbers():
    scenes, spaces = made(60, 2)
    explorer = EmbeddingExplorer(spaces, scenes, method="pca")
    explorer.worker.join(); explorer.select([1])
    new = {t: x[:2] + 0.01 for t, x in spaces.items()}
    numbers = explorer.add([np.zeros(8000), np.ones(4000)], ["park", "harbour"], new)
    assert numbers.tolist() == [60, 61] and explorer.fresh == [60, 61] and explorer.selection.tolist() == [1, 60, 61]
    assert explorer.table.scene.tolist()[-2:] == ["park", "harbour"] and len(np.frombuffer(explorer.map1["xy"], np.float32)) == 2 * 62
    assert explorer.errors["space 0"].near[60, 0] == 0 and len(explorer.waveform(61)) == 4000
    assert ask(explorer, ask="clip", clip=61)[0]["about"]["device"] == "added"
    with pytest.raises(ValueError, match="nothing can embed sound for space 'space 0'"): explorer.add([np.zeros(16000)], ["park"])
    explorer.method = "tsne"; explorer.worker.join()
    assert len(explorer.maps["space 0"].xy) == 62


def test_large_sets_are_sampled_and_say_so():
    scenes, spaces = made(200, 1)
    explorer = EmbeddingExplorer(spaces, scenes, limit=40, method="pca")
    explorer.worker.join()
    assert "a sample of 40 of 200 clips" in explorer.note and len(explorer.table) == 40
    explorer.select(explorer.rows[:3])
    assert (explorer.selected_table().index == explorer.rows[:3]).all()
    assert (scenes.frame.scene[explorer.rows].to_numpy() == explorer.table.scene).all()


def test_what_does_not_fit_is_named():
    scenes, spaces = made(40, 1)
    with pytest.raises(ValueError, match="space 'space 0' has 39 embeddings"): EmbeddingExplorer({t: x[1:] for t, x in spaces.items()}, scenes)
    with pytest.raises(ValueError, match="one to four"): EmbeddingExplorer({}, scenes)
    with pytest.raises(ValueError, match="no column 'colour'"): EmbeddingExplorer(spaces, scenes, colour="colour")
    with pytest.raises(ValueError, match="embedding 0 holds NaN"): EmbeddingExplorer({"a": spaces["space 0"] * np.nan}, scenes)


# In a browser.

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
BEGIN = SET_UP + '''
scenes, spaces = made()
explorer = EmbeddingExplorer(spaces, scenes, method="pca", columns=dict(height=np.arange(240.0)))
def tell(x): print(json.dumps(x))
'''
X = "document.querySelector('.cx').explorer"


def see(page, what): return page.evaluate(f"() => {{ const x = {X}; return {what}; }}")


def until(page, what, timeout=30000): page.wait_for_function(f"(() => {{ const x = document.querySelector('.cx')?.explorer; return x && ({what}); }})()", timeout=timeout)


def start(page, address, name="x.ipynb"):
    open_lab(page, address, name); run_all(page)
    page.wait_for_selector(".cx-view", timeout=90000)
    until(page, "x.model.get('quality').length > 0 && x.views[0].k")
    page.locator(".cx").scroll_into_view_if_needed()
    time.sleep(1)


@pytest.fixture(scope="module")
def chromium():
    with browser() as program: yield program


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    folder = tmp_path_factory.mktemp("lab")
    write_notebook(folder / "x.ipynb", BEGIN, "explorer")
    with jupyter(folder) as address:
        page = window(chromium)
        page.address = address
        start(page, address)
        yield page


def plane(page, i): return page.locator(".cx-view canvas[role=application]").nth(i)


def on_screen(page, i):
    "Where Python thinks the points of view i lie, in pixels of the page."
    xy = np.array(kernel(page, f"tell(np.frombuffer(explorer.map{i}['xy'], np.float32).reshape(-1, 2).tolist())"))
    box, low, high = plane(page, i).bounding_box(), xy.min(0), xy.max(0)
    unit = (xy - (low + high) / 2) / (high - low).max()
    return np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]) + 0.92 * min(box["width"], box["height"]) * unit * [1, -1]


def tool(page, name): page.get_by_role("button", name=name, exact=True).click()


@needs_browser
def test_three_views_of_the_same_clips_and_nothing_from_elsewhere(lab):
    assert lab.locator(".cx-view").count() == 3 and see(lab, "x.views.map(v => v.n)") == [240] * 3
    assert lab.strangers == [] and lab.faults == []
    assert see(lab, "x.views.every(v => v.points.getContext('2d').getImageData(0, 0, v.points.width, v.points.height).data.some(b => b > 0))")
    assert "trust" in lab.locator(".cx-view small").first.inner_text()
    assert not lab.locator(".jp-OutputArea-child img").first.is_visible()


@needs_browser
def test_a_lasso_selects_what_python_finds_inside_it(lab):
    from matplotlib.path import Path
    points = on_screen(lab, 1)
    middle = points.mean(0)
    corners = middle + 70 * np.array([[-1, -0.8], [0.9, -1], [0.4, 0.1], [1, 0.9], [-0.7, 1]])
    tool(lab, "lasso")
    lab.mouse.move(*corners[0]); lab.mouse.down()
    for corner in corners[1:]: lab.mouse.move(*corner)
    lab.mouse.up()
    until(lab, "x.model.get('selected').byteLength > 0")
    want = np.flatnonzero(Path(corners).contains_points(points))
    assert len(want) > 10 and kernel(lab, "tell(explorer.selection.tolist())") == want.tolist()
    assert see(lab, "[...x.lit].flatMap((l, i) => l ? [i] : [])") == want.tolist()
    tool(lab, "box")
    low, high = points.min(0) - 3, points.mean(0)
    lab.mouse.move(*low); lab.mouse.down(); lab.mouse.move(*((low + high) / 2)); lab.mouse.move(*high); lab.mouse.up()
    inside = np.flatnonzero(((points > low) & (points < high)).all(1)).tolist()
    until(lab, f"x.chosen.size === {len(inside)}"); time.sleep(0.3)
    assert kernel(lab, "tell(explorer.selection.tolist())") == inside
    tool(lab, "clear"); tool(lab, "move")
    until(lab, "!x.chosen.size")


@needs_browser
def test_a_click_plays_the_clip_and_draws_what_the_model_sees(lab):
    i = int(see(lab, "x.views[0].hit(x.views[0].w / 2, x.views[0].h / 2, 1e4)"))
    lab.mouse.click(*on_screen(lab, 0)[i])
    until(lab, f"x.clicked === {i} && x.peak > 0.1")
    assert kernel(lab, "tell(explorer.clicked)") == i
    picture = lab.locator(".cx-clip canvas")
    assert "log-mel" in picture.get_attribute("aria-label")
    assert see(lab, "new Set(document.querySelector('.cx-clip canvas').getContext('2d').getImageData(0, 0, 200, 100).data).size") > 20
    about = lab.locator(".cx-clip dl").inner_text()
    assert all(word in about for word in ("scene", "device", "city", "group"))
    assert lab.locator(".cx-near button").count() == 15


@needs_browser
def test_arrows_walk_the_neighbours_and_a_screen_reader_is_told(lab):
    lab.evaluate(f"() => {X}.open(7, false)"); until(lab, "x.near?.children.length > 1")
    near = kernel(lab, "tell(explorer.errors['space 1'].near[7].tolist())")
    plane(lab, 1).focus()
    lab.keyboard.press("ArrowRight"); lab.keyboard.press("ArrowRight")
    assert see(lab, "x.walked") == near[1]
    assert "neighbour 2 of 15" in see(lab, "x.live.textContent") and "scene" in see(lab, "x.live.textContent")
    lab.keyboard.press("ArrowLeft")
    assert see(lab, "x.walked") == near[0]
    lab.keyboard.press("ArrowDown"); until(lab, f"x.clicked === {near[0]}")
    lab.keyboard.press("ArrowUp"); until(lab, "x.clicked === 7")
    time.sleep(1); assert see(lab, "x.peak") < 0.05
    lab.keyboard.press(" "); until(lab, "x.peak > 0.1")
    lab.keyboard.press("s"); until(lab, "x.chosen.has(7)")
    lab.keyboard.press("Escape"); until(lab, "!x.chosen.size && x.clicked === -1")
    assert plane(lab, 0).get_attribute("tabindex") == "0" and "Arrow keys" in plane(lab, 0).get_attribute("aria-label")


@needs_browser
def test_colour_legend_search_and_filter(lab):
    ink = see(lab, "[...x.ink]")
    lab.get_by_label("colour").select_option("device")
    until(lab, "x.model.get('colour') === 'device'")
    assert see(lab, "[...x.ink]") != ink and lab.locator(".cx-legend button").count() == 3
    assert len(set(see(lab, "x.shape"))) == 3
    lab.locator(".cx-legend button").nth(1).click()
    assert see(lab, "x.lit.reduce((a, b) => a + b)") == 160
    lab.get_by_label("colour").select_option("height")
    until(lab, "document.querySelector('.cx-ramp')")
    assert "238" in lab.locator(".cx-ends").inner_text() or "237" in lab.locator(".cx-ends").inner_text()
    lab.get_by_label("search clips").fill("METRO st")
    assert see(lab, "x.found.length") == 60
    lab.keyboard.press("Enter"); until(lab, "x.chosen.size === 60")
    lab.get_by_label("filter by the table").fill("city == 'oslo'"); lab.keyboard.press("Enter")
    until(lab, "x.note.textContent.includes('120 of 240')")
    lab.get_by_label("filter by the table").fill("town == 1"); lab.keyboard.press("Enter")
    until(lab, "x.note.textContent.includes('cannot be read')")
    tool(lab, "clear"); until(lab, "x.lit.every(l => l) && !x.note.textContent")
    lab.get_by_label("colour").select_option("scene")


@needs_browser
def test_hovering_and_selecting_show_in_every_view(lab):
    lab.mouse.move(*on_screen(lab, 2)[11])
    until(lab, "x.hovered >= 0")
    assert "scene" in lab.locator(".cx-tip").nth(2).inner_text() and lab.locator(".cx-tip").nth(0).is_hidden()
    def marks(i): return see(lab, f"x.views[{i}].over.getContext('2d').getImageData(0, 0, x.views[{i}].over.width, x.views[{i}].over.height).data.reduce((a, b) => a + b)")
    assert all(marks(i) > 0 for i in range(3))
    lab.mouse.move(5, 5); until(lab, "x.hovered < 0")
    assert all(marks(i) == 0 for i in range(3))


@needs_browser
def test_unselected_points_stay_as_grey(lab):
    kernel(lab, "explorer.select(range(0, 240, 2))")
    until(lab, "x.chosen.size === 120")
    points, grey = on_screen(lab, 0), see(lab, "x.grey & 0xff")
    alone = [i for i in range(1, 240, 2) if np.sort(np.hypot(*(points - points[i]).T))[1] > 12]
    box = plane(lab, 0).bounding_box()
    for i in alone[:5]:
        x, y = points[i] - [box["x"], box["y"]]
        pixel = see(lab, f"[...x.views[0].points.getContext('2d').getImageData({x} * x.views[0].dpr, {y} * x.views[0].dpr, 1, 1).data]")
        assert pixel == [grey, grey, grey, 255]
    assert len(alone) > 4
    tool(lab, "clear"); until(lab, "!x.chosen.size")


@needs_browser
def test_true_neighbours_are_drawn_and_what_the_map_tore_or_faked_is_marked(lab):
    errors = kernel(lab, "e = explorer.errors['space 2']; i = int((e.torn.any(1) & e.faked.any(1)).argmax()); "
                         "tell(dict(i=i, near=e.near[i].tolist(), torn=e.torn[i].tolist(), shown=e.shown[i].tolist(), faked=e.faked[i].tolist()))")
    i, view = errors["i"], f"x.views[2]"
    lab.evaluate(f"() => {{ {X}.last = 2; {X}.open({i}, false); }}"); until(lab, f"x.clicked === {i} && x.near?.children.length > 1")
    for field in ("near", "shown", "torn", "faked"):
        assert [bool(v) if field in ("torn", "faked") else v for v in see(lab, f"[...{view}.{field}.slice({i} * 15, {i} * 15 + 15)]")] == errors[field]
    assert lab.locator(".cx-near button").count() == 15
    assert sum("⚡" in text for text in lab.locator(".cx-near button").all_inner_texts()) == sum(errors["torn"]) > 0
    orange = see(lab, f"(() => {{ const c = {view}.over, d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; "
                      "for (let p = 0; p < d.length; p += 4) n += d[p] === 213 && d[p + 1] === 94 && d[p + 2] === 0; return n; })()")
    assert orange > 50
    lab.evaluate(f"() => {{ {X}.last = 0; }}"); lab.keyboard.press("Escape"); tool(lab, "clear"); until(lab, "x.clicked === -1")


@needs_browser
def test_class_prototypes_are_drawn(lab):
    def letters(): return see(lab, "x.views.map(v => v.over.getContext('2d').getImageData(0, 0, v.over.width, v.over.height).data.reduce((a, b) => a + b, 0))")
    lab.mouse.move(5, 5)
    assert letters() == [0] * 3
    tool(lab, "class means"); time.sleep(0.3)
    assert all(n > 1000 for n in letters()) and see(lab, "x.medoids") == kernel(lab, "tell(explorer.medoids)")
    tool(lab, "class means"); time.sleep(0.3)
    assert letters() == [0] * 3


@needs_browser
def test_quality_of_every_view_and_of_every_point(lab):
    lab.get_by_role("tab", name="Quality").click()
    table = lab.locator(".cx-panel table")
    heads, rows = table.locator("thead th").all_inner_texts(), table.locator("tbody tr").count()
    assert heads[1:] == ["space 0", "space 1", "space 2"] and rows == kernel(lab, "tell(len(explorer.quality))")
    for name in ("trustworthiness", "continuity", "purity, embedding", "silhouette, map", "retrieval mAP", "neighbours shared with space 0"):
        assert name in table.inner_text()
    lab.get_by_label("colour").select_option("distortion, space 2"); until(lab, "document.querySelector('.cx-ramp')")
    want = kernel(lab, "tell(explorer.errors['space 2'].distortion.tolist())")
    assert np.allclose(see(lab, "[...x.columns['distortion, space 2'].numbers]"), want, atol=1e-6)
    lab.get_by_label("colour").select_option("scene")


@needs_browser
def test_mistakes_by_device_and_city(lab):
    lab.get_by_label("colour").select_option("right, space 2"); until(lab, "x.model.get('colour') === 'right, space 2'")
    assert [t.split()[0] for t in lab.locator(".cx-legend button").all_inner_texts()] == ["right", "wrong"]
    lab.get_by_role("tab", name="Errors").click()
    lab.get_by_label("who guesses").select_option("guess, space 2")
    for column in ("device", "city"):
        lab.get_by_label("right by").select_option(column)
        text = " ".join(lab.locator(".cx-panel .cx-bar").inner_text().split())
        for value, share in kernel(lab, f"t = explorer.table; tell((100 * (t['guess, space 2'] == t.scene).groupby(t.{column}).mean()).to_dict())").items():
            assert f"{value} {int(share + 0.5)} %" in text
    lab.get_by_label("colour").select_option("scene"); lab.get_by_role("tab", name="Quality").click()


@needs_browser
def test_another_map_comes_with_progress_and_points_travel(lab):
    before = see(lab, "[...x.views[1].to]")
    lab.evaluate(f"() => {{ window.bars = 0; window.halfway = 0; setInterval(() => {{ const v = {X}.views[1]; "
                 "if (!v.bar.hidden) window.bars++; if (v.moving) window.halfway++; }, 5); }")
    lab.get_by_role("combobox", name="map").select_option("tsne")
    until(lab, f"x.model.get('method') === 'tsne' && Object.keys(x.model.get('busy')).length === 0 && x.views[1].to[0] !== {before[0]!r}", 60000)
    until(lab, "!x.views[1].moving")
    kernel(lab, "explorer.worker.join()")
    assert lab.evaluate("() => window.bars") > 0 and lab.evaluate("() => window.halfway") > 2
    lab.get_by_role("slider", name="neighbours").evaluate("n => { n.value = 30; n.dispatchEvent(new Event('input')); n.dispatchEvent(new Event('change')); }")
    lab.get_by_role("combobox", name="map").select_option("pca")
    until(lab, f"Math.abs(x.views[1].to[0] - {before[0]!r}) < 1e-5", 60000)
    assert kernel(lab, "explorer.worker.join(); tell(explorer.neighbours)") == 30
    until(lab, "!x.views.some(v => v.moving)"); time.sleep(0.5)


@needs_browser
def test_shots_teach_and_cells_of_the_confusion_select(lab):
    lab.get_by_role("tab", name="Shots").click()
    lab.get_by_role("button", name="draw at random").click()
    until(lab, "x.model.get('guesses').length === 3")
    assert "% of 220 others right" in lab.locator(".cx-panel").inner_text()
    lab.get_by_role("tab", name="Errors").click()
    cell = lab.locator(".cx-grid button:not([disabled])").first
    words, many = cell.get_attribute("aria-label"), int(cell.inner_text())
    cell.click(); until(lab, f"x.chosen.size === {many}")
    assert words.startswith("park heard as park")
    lab.get_by_role("tab", name="Shots").click(); lab.get_by_role("button", name="forget all").click()
    until(lab, "!x.model.get('guesses').length")
    tool(lab, "clear"); lab.get_by_role("tab", name="Quality").click()
    assert "trustworthiness" in lab.locator(".cx-panel").inner_text()


@needs_browser
def test_things_to_take_away(lab):
    for name, kind in {"table": "selection.csv", "SVG": "maps.svg", "PNG": "maps.png"}.items():
        with lab.expect_download() as download: tool(lab, name)
        assert download.value.suggested_filename == kind
        data = open(download.value.path(), "rb").read()
        if kind == "selection.csv": assert len(pd.read_csv(download.value.path())) == 240
        if kind == "maps.svg": assert data.count(b"<circle") + data.count(b"<polygon") == 3 * 240
        if kind == "maps.png": assert data[:4] == b"\x89PNG"


@needs_browser
def test_another_theme_changes_what_is_drawn(lab):
    def theme(name): lab.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
    theme("JupyterLab Dark"); until(lab, "x.night")
    assert see(lab, "x.fore === getComputedStyle(x.root).color && x.style(7)[0] === '#C4C4C4'")
    theme("JupyterLab Light"); until(lab, "!x.night")
    assert see(lab, "x.fore === getComputedStyle(x.root).color && x.style(7)[0] === '#4D4D4D'")


@needs_browser
def test_a_page_needs_no_python(lab, tmp_path):
    kernel(lab, f"export_html(explorer, {str(tmp_path / 'map.html')!r}, sounds=True)")
    page = window(lab.context.browser, 600, 1200, color_scheme="dark")
    page.goto(f"file://{tmp_path / 'map.html'}")
    until(page, "x.views.length === 3 && x.views[0].k")
    page.evaluate(f"() => {X}.open(3, true)"); until(page, "x.peak > 0.1 && x.clicked === 3")
    assert see(page, "x.night") and page.strangers == [] and page.faults == []
    assert see(page, "new Set(x.views.map(v => v.node.getBoundingClientRect().x)).size") < 3
    assert page.get_by_role("tab").all_inner_texts() == ["Quality", "Errors"] and page.get_by_label("filter by the table").is_hidden()
    page.context.close()


@needs_browser
def test_a_newcomer_is_marked_and_a_reload_keeps_everything(lab):
    kernel(lab, "explorer.select([5, 6]); explorer.add([0.1 * np.ones(8000)], ['park'], {t: x[:1] for t, x in spaces.items()})")
    until(lab, "x.count === 241 && x.fresh.length === 1 && x.chosen.size === 3")
    lab.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')"); time.sleep(1.5)
    lab.goto(f"{lab.address}/lab/tree/x.ipynb?token=t")
    until(lab, "x.count === 241 && x.views[2].k && x.chosen.size === 3", 60000)
    assert kernel(lab, "tell(explorer.selection.tolist())") == [5, 6, 240]


@needs_browser
def test_without_a_kernel_the_picture_remains(lab):
    lab.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')"); time.sleep(1.5)
    lab.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"); time.sleep(1)
    lab.goto(f"{lab.address}/lab/tree/x.ipynb?reset&token=t")
    lab.wait_for_selector(".jp-OutputArea-child img", timeout=60000)
    assert lab.locator(".jp-OutputArea-child img").first.is_visible() and lab.locator(".cx-view").count() == 0


@needs_browser
def test_notebook_seven_shows_it_too(tmp_path, chromium):
    write_notebook(tmp_path / "x.ipynb", BEGIN, "explorer")
    with jupyter(tmp_path, "notebook") as address:
        page = window(chromium)
        page.goto(f"{address}/notebooks/x.ipynb?token=t")
        page.wait_for_selector(".jp-Cell", timeout=90000)
        while [s["kernel"]["execution_state"] for s in page.request.get(f"{address}/api/sessions?token=t").json()] != ["idle"]: time.sleep(0.3)
        time.sleep(1)
        page.get_by_text("Run", exact=True).first.click(); page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_selector(".cx-view", timeout=90000)
        until(page, "x.model.get('quality').length > 0 && x.views[0].k")
        page.locator(".cx").scroll_into_view_if_needed()
        page.evaluate(f"() => {X}.open(3, true)"); until(page, "x.peak > 0.1 && x.clicked === 3")
        assert page.locator(".cx-view").count() == 3 and page.strangers == []


@needs_browser
def test_voila_serves_it_as_an_app(tmp_path, chromium):
    write_notebook(tmp_path / "x.ipynb", BEGIN, "explorer")
    with voila(tmp_path, "x.ipynb") as address:
        page = window(chromium)
        page.goto(address, timeout=120000)
        page.wait_for_selector(".cx-view", timeout=90000)
        until(page, "x.model.get('quality').length > 0 && x.views[0].k")
        page.evaluate(f"() => {X}.open(3, true)"); until(page, "x.peak > 0.1 && x.clicked === 3")
        assert "SceneSet" not in page.content() and all("fontawesome" in address for address in page.strangers)
