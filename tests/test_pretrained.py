"Boxes of models: what goes in comes out, and nothing else."
import json
import shutil

import numpy as np
import pytest
import torch

from contrastasc.beats import BEATs, BEATsConfig, save_beats
from contrastasc.cpmobile import CPMobile, Student
from contrastasc.distill import save_student
from contrastasc.finetune import Teacher
from contrastasc.frontend import LogMel
from contrastasc.pretrained import halve, load_model, load_pretrained, model_card, pack_model, pretrained_models
from contrastasc.softsupcon import CosineHead, ProjectionHead


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    "One model of each kind."
    place = tmp_path_factory.mktemp("box")
    torch.manual_seed(0)
    small = BEATsConfig.from_dict(dict(encoder_layers=1, encoder_embed_dim=48, encoder_ffn_embed_dim=96, encoder_attention_heads=4, embed_dim=32,
                                       input_patch_size=16, conv_pos=16, conv_pos_groups=4))
    encoder = BEATs(small)
    save_beats(encoder, place / "encoder.safetensors")
    Teacher(encoder, CosineHead(48, 3), ProjectionHead(48), ["a", "b", "c"]).save(place / "teacher")
    student = Student(LogMel(), CPMobile("cpm6k", 3)); student.classes = ["a", "b", "c"]
    save_student(student, place / "student")
    for source, name in (("encoder.safetensors", "ssl"), ("teacher", "big"), ("student", "little")):
        pack_model(place / source, name, f"# {name}\n\nA test.", place / "models")
    return place / "models"


def test_each_kind_comes_back(box):
    wave = 0.1 * torch.randn(2, 16000)
    loaded = {name: load_pretrained(name, box) for name in ("ssl", "big", "little")}
    assert [type(m).__name__ for m in loaded.values()] == ["BEATs", "Teacher", "Student"]
    with torch.inference_mode(): widths = [m.embed(wave).shape[1] for m in loaded.values()]
    assert widths == [48, 48, CPMobile("cpm6k").embed_dim] and not any(m.training for m in loaded.values())
    assert loaded["ssl"].name == "ssl" and loaded["big"].encoder.name == "big" and loaded["little"].classes == ["a", "b", "c"]
    assert all(p.dtype == torch.float32 for m in loaded.values() for p in m.parameters())


def test_the_list_of_a_box(box):
    table = pretrained_models(box)
    assert list(table.name) == ["ssl", "big", "little"] and list(table.kind) == ["beats", "teacher", "student"]
    assert table.bytes[0] < 4 * table.parameters[0] and model_card("big", box) == "# big\n\nA test."


@pytest.mark.parametrize("name", ["weights.safetensors", "about.json", "card.md"])
def test_one_changed_bit_is_seen(box, tmp_path, name):
    copy = shutil.copytree(box, tmp_path / "models")
    file = copy / "little" / name
    data = bytearray(file.read_bytes()); data[len(data) // 2] ^= 1; file.write_bytes(data)
    with pytest.raises(ValueError, match="little is not what was packed"): load_pretrained("little", copy)
    load_pretrained("ssl", copy)
    file.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"): load_pretrained("little", copy)


def test_names_that_are_not_there(box, tmp_path):
    with pytest.raises(ValueError, match="no model .cpm7k. in .*models; there are ssl, big, little"): load_pretrained("cpm7k", box)
    with pytest.raises(ValueError, match="it holds no models.json"): load_pretrained("x", tmp_path)


def test_a_model_by_name_or_by_folder(box, tmp_path):
    assert [type(load_model(box / name)).__name__ for name in ("ssl", "big", "little")] == ["BEATs", "Teacher", "Student"]
    assert load_model("nano", "teacher").name == "nano-teacher" and load_model(str(box / "little"), "student").classes == ["a", "b", "c"]
    for source, kind, words in (("nano-ssl", "teacher", "nano-ssl holds a beats, not a teacher"), (box / "big", "student", "holds a teacher, not a student"),
                                (box / "none", None, "neither a folder nor a model that ships: nano-ssl, nano, cpm6k"), (tmp_path, None, "holds no saved model")):
        with pytest.raises(ValueError, match=words): load_model(source, kind)
    (tmp_path / "about.json").write_text('{"kind": "sandwich"}')
    with pytest.raises(ValueError, match="holds a sandwich, not a model"): load_model(tmp_path)


def test_packing_again_replaces(box, tmp_path):
    copy = shutil.copytree(box, tmp_path / "models")
    pack_model(box / "little", "big", "# another", copy)  # what is packed can be packed again
    assert json.loads((copy / "models.json").read_text())["big"]["kind"] == "student" and model_card("big", copy) == "# another"


def test_packing_in_place_is_for_the_card(box, tmp_path):
    copy = shutil.copytree(box, tmp_path / "models")
    before = (copy / "ssl" / "weights.safetensors").read_bytes()
    pack_model(copy / "ssl", "ssl", "# new", copy)
    assert (copy / "ssl" / "weights.safetensors").read_bytes() == before and model_card("ssl", copy) == "# new"
    save_student(load_pretrained("little", box), copy / "little")  # 32 bits again, where it shall lie
    pack_model(copy / "little", "little", "# half", copy)
    assert pretrained_models(copy).set_index("name").bytes["little"] == pretrained_models(box).set_index("name").bytes["little"]


def test_what_is_no_model_is_not_packed(box, tmp_path):
    copy = shutil.copytree(box, tmp_path / "models")
    (copy / "big" / "about.json").write_text('{"kind": "sandwich"}')
    with pytest.raises(ValueError, match="holds a sandwich"): pack_model(copy / "big", "little", "# x", copy)
    load_pretrained("little", copy)


def test_what_16_bits_cannot_hold():
    assert halve({"v": torch.tensor([1e6])})["v"].dtype == torch.float32
    for bad in (1e5, np.nan):
        with pytest.raises(ValueError, match="m holds numbers"): halve({"m": torch.full((1, 1), bad)})
