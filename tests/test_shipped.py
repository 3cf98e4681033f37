"The weights that ship: all there, whole, small enough, described, and not random."
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
import torch

from contrastasc.cpmobile import VARIANTS
from contrastasc.evaluate import kshot_scenes
from contrastasc.pretrained import load_pretrained, model_card, pretrained_models
from contrastasc.scenes import load_scenes
from contrastasc.train import extract_embeddings

NAMES = ["nano-ssl", "nano", *VARIANTS]
DATA = Path(str(files("contrastasc.data")))


def test_the_box_is_complete_and_small():
    table = pretrained_models()
    assert sorted(table.name) == sorted(NAMES) and sum(f.stat().st_size for f in DATA.rglob("*")) < 15e6


@pytest.mark.parametrize("name", NAMES)
def test_each_model_loads_and_embeds(name):
    model = load_pretrained(name)
    wave = 0.1 * torch.randn(3, 16000)
    with torch.inference_mode(): x, quiet = model.embed(wave), model.embed(torch.zeros(1, 16000))
    assert x.isfinite().all() and quiet.isfinite().all() and not model.training and model.sample_rate == 16000
    assert (x[0] - x[1]).norm() > 0


@pytest.mark.parametrize("name", NAMES)
def test_each_card_says_what_it_must(name):
    card = model_card(name)
    for part in ("## How good it is", "## What it heard", "## How it was made", "contrastasc pretrain", "seed", "Debian packages", "CC"): assert part in card, part


@pytest.mark.parametrize("name", NAMES)
def test_each_card_is_in_step_with_the_results_and_the_recipe(name):
    from contrastasc.recipe import Recipe, _in_words, _numbers, results_text
    card, seeds = model_card(name), pd.read_csv(DATA / "seeds.csv")
    good = card.split("## How good it is\n\n")[1].split("## What it heard")[0]
    assert good.startswith(results_text(name, pd.read_csv(DATA / "results.csv"))) and ("Distilled again" in good) == (name in set(seeds.row))
    assert all(f"{100 * a:.1f}" in good for a in seeds.accuracy[seeds.row == name])
    numbers = "\n".join(f"| {what} | {_in_words(value)} |" for what, value in _numbers(name, Recipe.at("paper", precision="bfloat16")).items())
    assert card.endswith(f"| what | value |\n|---|---|\n{numbers}\n")


def test_the_teacher_that_ships_has_learnt_something():
    "On a generated world that it had no clip of, five shots: better than the same network with random numbers."
    world = load_scenes("synth-icme24", scale="tiny")
    from contrastasc.recipe import untrained
    def five(m): return kshot_scenes(extract_embeddings(m, world, progress=False), world.frame, 5, repeats=20).mean
    assert five(load_pretrained("nano")) > five(untrained()["random nano"])


def test_results_cover_every_model():
    results = pd.read_csv(DATA / "results.csv")
    assert set(NAMES) <= set(results.row) and {5} <= set(results.k)
    history = pd.read_csv(DATA / "pretraining.csv")
    assert set(history["round"]) == {0, 1, 2} and history.fiveshot.between(0, 1).all()
    unheard = pd.read_csv(DATA / "unheard.csv")
    assert {"nano", "cpm6k"} <= set(unheard.row) and (unheard.gain.notna() == unheard.row.isin(["nano", "cpm6k"])).all()
