"""The prepared public data sets against training files that were derived from the same sources in another way."""

import json
import lzma
from pathlib import Path

import pytest

from exgra_adapter.data.preparation.llava_med import LlavaMed
from exgra_adapter.data.preparation.pathvqa import PathVqa
from exgra_adapter.data.preparation.prepare import Preparation, prepare
from exgra_adapter.data.preparation.slake import Slake
from exgra_adapter.data.preparation.vqa_rad import VqaRad
from exgra_adapter.data.records import read_records


@pytest.fixture(autouse=True)
def picture(request, monkeypatch):
    """Draws pictures only for tests that say so in their name: drawing takes most of the time."""
    if "picture" not in request.node.name:
        monkeypatch.setattr(
            "exgra_adapter.data.preparation.prepare.plot_statistics", lambda facts, path: path.write_bytes(b"")
        )


def load(path: Path):
    content = path.read_bytes()
    return json.loads(lzma.decompress(content) if path.suffix == ".xz" else content)


def rows_of(path: Path, with_id: bool = True):
    """What a training file says, all of it as text, with single spaces: some published questions end with one."""
    return [
        (
            str(sample["id"]) if with_id else None,
            sample["image"],
            sample["answer_type"],
            [(message["from"], " ".join(str(message["value"]).split())) for message in sample["conversations"]],
        )
        for sample in load(path)
    ]


def candidates_of(path: Path):
    return [str(answer).strip() for answer in load(path)["0"]]


@pytest.mark.parametrize("layout", ["published", "trainset and testset"])
def test_vqa_rad_gives_the_customary_split(data_folder, tmp_path, layout):
    folder = data_folder / "medvqa" / "vqa_rad"
    source = folder
    if layout != "published":
        source = tmp_path / "source"
        source.mkdir()
        for name in ("trainset.json.xz", "testset.json"):
            (source / name).symlink_to(folder / name)
    facts = prepare(VqaRad(source), tmp_path / "out")
    splits = facts["splits"]
    assert (splits["train"]["rows"], splits["test"]["rows"]) == (3064, 451)
    assert (splits["test"]["OPEN"], splits["test"]["CLOSED"]) == (179, 272)
    assert rows_of(tmp_path / "out/train.json") == rows_of(folder / "train_w_options_new.json.xz")
    assert rows_of(tmp_path / "out/test.json") == rows_of(folder / "test_w_options_new.json")
    assert candidates_of(tmp_path / "out/candidates.json") == candidates_of(folder / "candidate.json")
    assert facts["test_rephrasings"]["rows"] == 284
    assert facts["shared"]["test"]["images"] == 203  # every test image is a training image


def test_vqa_rad_keeps_the_samples_whose_image_is_there(data_folder, tmp_path):
    folder = data_folder / "medvqa" / "vqa_rad"
    how = Preparation(images=folder / "images", missing_images="drop", test_rephrasings="keep")
    facts = prepare(VqaRad(folder), tmp_path / "out", how)
    for split in ("train", "test"):
        assert rows_of(tmp_path / f"out/{split}.json") == rows_of(folder / f"{split}_w_options_new_with_images.json")
    assert facts["missing_images"]["rows"] == 3064 + 451 - 347 - 143


def test_vqa_rad_without_the_test_questions_in_templates(data_folder, tmp_path):
    how = Preparation(test_rephrasings="drop")
    facts = prepare(VqaRad(data_folder / "medvqa" / "vqa_rad"), tmp_path / "out", how)
    assert (facts["splits"]["train"]["rows"], facts["splits"]["test"]["rows"]) == (3064 - 284, 451)


def test_slake_in_english(data_folder, tmp_path):
    folder = data_folder / "medvqa" / "slake"
    how = Preparation(images=folder / "imgs")
    facts = prepare(Slake(folder), tmp_path / "out", how)
    wanted = {"train": load(folder / "train_w_options_new.json.xz"), "test": load(folder / "test_w_options_new.json")}
    unanswered = [sample["id"] for sample in wanted["train"] if not sample["conversations"][1]["value"]]
    assert facts["skipped_rows"]["rows"] == len(unanswered) == 1
    expected = [row for row in rows_of(folder / "train_w_options_new.json.xz") if row[0] != str(unanswered[0])]
    assert rows_of(tmp_path / "out/train.json") == expected
    assert rows_of(tmp_path / "out/test.json") == rows_of(folder / "test_w_options_new.json")
    assert facts["splits"]["validation"]["rows"] == 1053
    assert candidates_of(tmp_path / "out/candidates.json") == [a for a in candidates_of(folder / "candidate.json") if a]
    assert load(tmp_path / "out/test.json")[0]["modality"] == "CT"


def test_slake_keeps_the_samples_whose_image_is_there(data_folder, tmp_path):
    folder = data_folder / "medvqa" / "slake"
    how = Preparation(images=folder / "imgs", missing_images="drop")
    prepare(Slake(folder), tmp_path / "out", how)
    assert rows_of(tmp_path / "out/test.json") == rows_of(folder / "test_w_options_new_with_images.json")


@pytest.mark.parametrize("ids", ["image", "unique"])
def test_pathvqa_sample(data_folder, tmp_path, ids):
    folder = data_folder / "medvqa" / "pathvqa"
    source = PathVqa(folder / "pvqa_test_lxmert_sample.json", ids=ids)
    prepare(source, tmp_path / "out", Preparation(partial=True))
    made = rows_of(tmp_path / "out/test.json", with_id=ids == "image")
    assert len(made) == 342
    assert made == rows_of(folder / "test_w_options_new.json", with_id=ids == "image")[:342]
    records = read_records(tmp_path / "out/test.json", allow_duplicate_ids=ids == "image")
    assert len({record.id for record in records}) == (60 if ids == "image" else 342)


@pytest.mark.parametrize("kind", ["alignment", "instruct"])
def test_llava_med_samples(data_folder, tmp_path, kind):
    source = data_folder / "medvqa" / "llava_med" / f"{kind}_sample_from_qa50.json"
    facts = prepare(LlavaMed(source), tmp_path / "out")
    assert facts["splits"]["train"]["rows"] == 50
    assert read_records(tmp_path / "out/train.json") == read_records(source)
    assert "conversatons" not in (tmp_path / "out/train.json").read_text()
    assert load(tmp_path / "out/train.json")[0]["modality"] == "histology, gross"
