"Soundscapes: what a shelf hands out, what a recipe makes of it, and what a set of them promises."
import numpy as np
import pytest

from contrastasc.scenes import SceneError, SceneSet
from contrastasc.soundscapes import (SOUNDSCAPES, Layer, Shelf, Soundscape, coloured_noise, compose, events, in_room, possible,
                                     recorded, room_response, soundscapes, steps, texture, voices)
from contrastasc.sounds import FAMILIES, PLACES
from contrastasc.synth import render_layer


def dice(seed=0): return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def shelf():
    "Tones: a pitch for each family, several seconds each; the last recording of each is a fifth of a second."
    t, waves, names = np.arange(48000) / 16000, [], []
    for hz, family in ((300, "speech"), (900, "birds"), (2700, "footsteps")):
        for i in range(3):
            waves.append(np.sin(2 * np.pi * hz * t)[:48000 if i < 2 else 3200].astype(np.float32)); names.append(family)
    rows = [(w[s:s + 16000], n, f"{n}-{i}") for i, (w, n) in enumerate(zip(waves, names)) for s in range(0, len(w), 16000)]
    return Shelf(SceneSet.from_arrays([r[0] for r in rows], [r[1] for r in rows], groups=[r[2] for r in rows], recording=[r[2] for r in rows]))


def loudest(wave): return np.abs(np.fft.rfft(wave)).argmax() * 16000 / len(wave)


def test_a_shelf_hands_out_its_family(shelf):
    d = dice()
    for family, hz in (("speech", 300), ("birds", 900)):
        picks = [shelf.pick(family, d, most=1.0) for _ in range(12)]
        assert all(hz * 2 ** -0.36 < loudest(p) < hz * 2 ** 0.36 for p in picks)
        assert all(len(p) <= 16000 * 2 ** 0.35 and np.sqrt(np.mean(p ** 2)) == pytest.approx(1, abs=0.02) for p in picks)
    assert min(len(shelf.pick("speech", d, speed=0.0)) for _ in range(20)) < 3300  # silence behind a short one is no part of it


def test_a_silent_recording_stays_silent():
    shelf = Shelf(SceneSet.from_arrays([np.zeros(16000, np.float32)], ["rain"]))
    assert len(quiet := shelf.pick("rain", dice())) > 10000 and not quiet.any()


def test_made_sounds_are_finite_even_where_nothing_sounds():
    for name in ("horn", "gulls", "beep", "passby", "announce"):
        assert all(np.isfinite(render_layer(name, seed).numpy()).all() for seed in range(20))
    with pytest.raises(ValueError, match="no layer 'cow'"): render_layer("cow")


def test_a_shelf_does_not_prefer_whoever_gave_most():
    waves, groups = [np.full(800, v, np.float32) for v in [0.5] * 100 + [0.25]], ["many"] * 100 + ["one"]
    waves = [w * np.sign(np.sin(np.arange(800))) for w in waves]
    shelf = Shelf(SceneSet.from_arrays(waves, ["rain"] * 101, groups=groups))
    assert shelf._chances["rain"][-1] == pytest.approx(1 / 11)


@pytest.mark.parametrize("n", [1, 700, 16000, 50000])
@pytest.mark.parametrize("length", [1, 300, 5000, 40000])
def test_textures_have_the_length_asked_for(length, n):
    out = texture(np.ones(length, np.float32), n, dice())
    assert out.shape == (n,) and 0.7 < out.min() and out.max() < 1.5  # gains of a cross-fade never leave a hole


def test_cross_fades_keep_the_power():
    power = texture(dice().standard_normal(8000).astype(np.float32), 160000, dice(1)) ** 2
    assert power.reshape(20, -1).mean(1).std() < 0.15 and power.mean() == pytest.approx(1, abs=0.1)


def test_events_steps_and_voices():
    click = lambda: np.ones(1, np.float32)
    assert np.count_nonzero(events(click, 16000 * 500, 2.0, dice())) == pytest.approx(1000, abs=120)
    assert np.count_nonzero(steps(click, 16000 * 500, 2.0, dice())) == pytest.approx(1000, abs=20)
    assert voices(lambda: np.ones(100, np.float32), 400, 3, dice()).shape == (400,)
    long = events(lambda: np.ones(16000 * 9, np.float32), 16000, 1.0, dice())  # what began before the first sample hangs in
    assert long.shape == (16000,)


def test_rooms():
    response = room_response(0.5, dice())
    assert np.sum(response ** 2) == pytest.approx(1, rel=1e-5)
    click = np.zeros(16000, np.float32); click[0] = 1
    wet = in_room(click, response, 1.0)
    assert np.allclose(wet[:len(response)], response, atol=1e-6) and np.abs(wet[len(response):]).max() < 1e-6


def test_recordings_stay_in_range():
    for seed in range(20):
        wave = recorded(coloured_noise(16000, 1.5, dice(seed)), dice(seed))
        assert np.isfinite(wave).all() and np.abs(wave).max() <= 1
    assert np.array_equal(recorded(np.zeros(1600), dice()), np.zeros(1600))


def test_recipes_ask_only_for_families_that_exist():
    for name, recipe in SOUNDSCAPES.items():
        for layer in recipe.layers:
            assert layer.kind in ("texture", "events", "steps", "voices", "announcement", "rumble"), name
            assert layer.family in (*FAMILIES, *PLACES) or layer.kind == "rumble", (name, layer.family)
            assert layer.level[0] <= layer.level[1] and 0 < layer.chance <= 1


@pytest.mark.parametrize("kind", ["texture", "events", "steps", "voices", "announcement", "rumble"])
def test_each_kind_of_layer_can_be_composed(shelf, kind):
    recipe = Soundscape((Layer("texture", "birds"), Layer(kind, "" if kind == "rumble" else "speech", 2.0)))
    wave = compose(recipe, shelf, dice(), 3)
    assert wave.shape == (48000,) and wave.dtype == np.float32 and np.isfinite(wave).all() and wave.std() > 1e-3


def test_a_layer_that_is_never_drawn_leaves_the_first(shelf):
    quiet = Soundscape((Layer("texture", "birds", chance=1e-9), Layer("texture", "speech", chance=1e-9)), noise=(-60, -60), wet=(0, 0))
    assert 600 < loudest(compose(quiet, shelf, dice(), 3)) < 1300


def test_sets_of_soundscapes(shelf):
    recipes = possible(shelf)
    assert {"street_pedestrian", "classroom", "park"} <= set(recipes) and "rain" not in recipes
    made = soundscapes(shelf, 2, seconds=3, recipes={k: recipes[k] for k in ("classroom", "park")})
    assert made.classes == ["classroom", "park"] and len(made) == 2 * 2 * 3 and made.frame.recording.nunique() == 4
    whole = compose(recipes["classroom"], shelf, np.random.default_rng(made.frame.dice.iloc[0]), 3)
    heard = np.concatenate([made[i][0].numpy() for i in range(3)])
    assert np.abs(heard - whole).max() < 1e-4
    with pytest.raises(SceneError, match="nothing to begin 'airfield' with"): soundscapes(shelf, 1)
