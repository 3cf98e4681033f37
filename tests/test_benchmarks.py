"Every benchmark at full size, run with tiny numbers: they start, end, and print numbers that mean something. Nothing is timed here."
import csv
import math
import re

import torch

from benchmarks import full_scale, loader, pack
from tests.parity.test_beats import rule


def sound(numbers): return all(math.isfinite(n) and n > 0 for n in numbers)


def printed(capsys):
    "Numbers of everything printed so far."
    text = capsys.readouterr().out
    assert not re.search(r"\b(nan|inf)\b", text), text
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def test_pack(tmp_path, capsys):
    found = pack.main(["--clips", "40", "--sample", "12", "--checked", "5", "--rows", "30", "--workdir", str(tmp_path)])
    twice = found.pop("twice")
    assert sound(found.values()) and found["same"] and found["clips"] >= 40 and 0 <= twice <= found["clips"]
    assert len(printed(capsys)) >= len(found) and not list(tmp_path.iterdir())


def test_some_clips_are_at_least_as_many_as_wanted():
    for clips in (1, 40, 500, 10000):
        frame = pack.some(clips)
        assert clips <= len(frame) < clips + 200 and set(frame.split) == {"train", "test"} and frame.path.is_unique


def test_loader(capsys):
    found = loader.main(["--batch", "8", "--clips", "40", "--repeats", "1", "--variant", "cpm6k"])
    assert set(found) == {"stage 1", "stage 2"}
    for part in found.values():
        assert len(part["parts"]) == 5 and sound([*part["parts"].values(), part["sum"], part["step"], part["ratio"]])
        assert math.isclose(part["sum"], sum(part["parts"].values()))
    assert len(printed(capsys)) > 20


def test_full_scale(tmp_path, capsys):
    table = tmp_path / "out.csv"
    for more in ([], ["--stage", "2", "--variant", "cpm12k"]):
        found = full_scale.main(["--clips", "40", "--batch", "4", "--seconds", "0.1", "--teacher", "nano", "--variant", "cpm6k", "--precision", "float32",
                                 "--workdir", str(tmp_path), "--out", str(table), *more])
        assert sound(found.values()) and len(found) == (3 if more else 8)
    rows = list(csv.DictReader(open(table)))
    assert len(rows) == 8 and sound(float(r["samples_per_second"]) for r in rows) and {r["clips"] for r in rows} == {"40"}
    assert len(printed(capsys)) > 30 and list(tmp_path.iterdir()) == [table]


def test_drawn_rows_are_whole_passes_and_then_some():
    rows = full_scale.drawn(10, 25)
    assert len(rows) == 25 and sorted(rows[:10]) == list(range(10)) and (rows[:10] == rows[10:20]).all()


def test_the_rule_is_that_of_the_reference():
    state = full_scale.rule_beats("nano").state_dict()
    for place, (key, weight) in enumerate(sorted(state.items())): assert torch.equal(weight, rule(key, place, weight.shape, 0.0)), key
