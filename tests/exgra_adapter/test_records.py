"""Records, extended answers and image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exgra_adapter.data.check import check_images
from exgra_adapter.data.extender import TemplateExtender, extend_records
from exgra_adapter.data.images import ImageError, image_path, open_image
from exgra_adapter.data.records import Record, Turn, read_records, write_records

SAMPLE: dict[str, Any] = {
    "id": 3,
    "image": "a/b.png",
    "answer_type": "OPEN",
    "conversations": [
        {"from": "human", "value": "How many\n<image>lesions?"},
        {"from": "gpt", "value": 2},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "left lung"},
    ],
}
LONG = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "There are 2."}] * 2


def write(folder: Path, content: Any) -> Path:
    path = folder / "data.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (SAMPLE | changes).items() if value is not None}


def turns(*values: Any, speakers: tuple[str, ...] = ("human", "gpt")) -> list[dict[str, Any]]:
    return [{"from": speakers[index % 2], "value": value} for index, value in enumerate(values)]


def test_reads_turns_numbers_and_tags(tmp_path):
    record = read_records(write(tmp_path, [SAMPLE]))[0]
    assert record == Record("3", "a/b.png", (Turn("How many lesions?", "2"), Turn("Where?", "left lung")), "OPEN")


@pytest.mark.parametrize("short", ["conversations", "conversatons"])
@pytest.mark.parametrize("long", ["conversations_long", "conversatons_long"])
def test_reads_both_spellings(tmp_path, short, long):
    sample = {"id": "x", "image": "x.png", short: SAMPLE["conversations"], long: LONG}
    record = read_records(write(tmp_path, [sample]))[0]
    assert [turn.extended_answer for turn in record.turns] == ["There are 2.", "There are 2."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "line 1, column 3"),
        ('{"a": 1}', "must hold a JSON list of samples; got an object"),
        ([1], "sample 0 of .* must be a JSON object; got a number"),
        ([changed(id=None)], "must have key 'id'"),
        ([changed(image=None)], r"sample 0 .*\(id '3'\) must have key 'image'"),
        ([changed(conversations=None)], "must have key 'conversations'"),
        ([changed(conversations="text")], "must be a list of messages; got a text"),
        ([changed(conversations=[])], "in pairs; got 0 messages"),
        ([changed(conversations=turns("q", "a", "q"))], "in pairs; got 3 messages"),
        ([changed(conversations=turns("q", "a", speakers=("gpt", "human")))], "must come from 'human'"),
        ([changed(conversations=turns("q", "a", speakers=("human", "human")))], "message 1 must come from 'gpt'"),
        ([changed(conversations=[{"from": "human"}, {"from": "gpt", "value": "a"}])], "must have key 'value'"),
        ([changed(conversations=turns("q", None))], "must be text or a number; got null"),
        ([changed(conversations=turns("q", True))], "must be text or a number; got true or false"),
        ([changed(conversations=turns("q", "  "))], "must not be empty"),
        ([changed(conversations=turns("<image>", "a"))], "must not be empty"),
        ([changed(conversations=turns("q", "\u200b\ufeff"))], "must not be empty"),
        ([changed(conversations=turns("<image>\u200b", "a"))], "must not be empty"),
        ([changed(conversations=turns("q", "a <image>"))], "message 1 may hold <image> never"),
        ([changed(conversations=turns("q", "a", "q <image>", "a"))], "message 2 may hold <image> never"),
        ([changed(conversations=turns("<image> q <image>", "a"))], "may hold <image> once; got it 2 times"),
        ([changed(conversations_long=LONG[:2])], r"as many turns as the conversation \(2\); got 1"),
        ([changed(answer_type="open")], "'answer_type' must be"),
        ([SAMPLE, changed(id="4"), changed(id="3")], "got id '3' at sample 0 of .* and at sample 2 of"),
    ],
)
def test_bad_files_give_one_sentence(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_records(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_binary_file(tmp_path):
    with pytest.raises(ValueError, match="must name an existing file"):
        read_records(tmp_path / "none.json")
    with pytest.raises(ValueError, match="must be a readable file"):
        read_records(tmp_path)
    (tmp_path / "image.json").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="must be UTF-8"):
        read_records(tmp_path / "image.json")


def test_duplicate_ids_can_be_allowed(tmp_path):
    assert len(read_records(write(tmp_path, [SAMPLE, SAMPLE]), allow_duplicate_ids=True)) == 2


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).map(str.strip).filter(bool)
words = words.filter(lambda text: "<image>" not in text)


@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=3), st.booleans())
def test_written_records_read_back(tmp_path_factory, texts, extended):
    path = tmp_path_factory.mktemp("records") / "r.json"
    record = Record("é", "a.png", tuple(Turn(q, a, long if extended else None) for q, a, long in texts), None)
    write_records(path, [record])
    assert read_records(path) == [record]
    assert [file.name for file in path.parent.iterdir()] == ["r.json"]


def test_partly_extended_records_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="in all turns or in none; got 1 of 2"):
        write_records(tmp_path / "r.json", [Record("1", "a", (Turn("q", "a", "long"), Turn("q", "a")))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("question", "answer", "kept"),
    [
        ("How many lesions > 5 mm are in the left lung?", "3", "lesions > 5 mm in the left lung"),
        ("Where is/are the mass located?", "right lobe", "the mass"),
        ('Is the heart enlarged? (Answer with either "Yes" or "No").', "Yes", "is the heart enlarged"),
        ("Are there no fractures?", "no", "are there no fractures"),
        ("Which organ system is imaged?", "CT of the GI tract", "CT of the GI tract"),
        ("What is the T2 signal?", "high", "T2 signal"),
        ("Is it left or right?", "left", "it left or right"),
    ],
)
def test_extended_answers_keep_terms(question, answer, kept):
    extended = TemplateExtender().extend(question, answer)
    assert kept in extended
    assert answer in extended
    assert len(extended.split()) <= 20
    assert extended == TemplateExtender().extend(question, answer)
    assert "(Answer" not in extended


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_every_text_can_be_extended(question, answer):
    extended = TemplateExtender().extend(question, answer)
    assert extended.strip()
    assert len(extended.split()) <= max(20, 2 * len(answer.split()))


def test_existing_extended_answers_stay():
    record = Record("1", "a.png", (Turn("Is there a lesion?", "no", "long"), Turn("Is there a lesion?", "no")))
    first, second = extend_records([record], TemplateExtender())[0].turns
    assert (first.extended_answer, second.extended_answer) == ("long", "No, this image shows no lesion.")


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "a/../../b.png", "C:\\a.png", "C:a.png", "..\\a.png", "a\0.png"]
)
def test_names_never_leave_the_image_folder(name):
    with pytest.raises(ImageError, match="must stay inside the image folder"):
        image_path(Path("images"), name)


def test_bad_images_are_refused(tmp_path, monkeypatch):
    good = Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    good.save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-80])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    assert open_image(tmp_path, "good.png").mode == "RGB"
    for name in ("cut.png", "text.png", "empty.png"):
        with pytest.raises(ImageError, match=f"{name} must be a readable image"):
            open_image(tmp_path, name)
    for name in ("none.png", "."):
        with pytest.raises(ImageError, match="must be an existing image file"):
            open_image(tmp_path, name)
    for limit in (3000, 1000):  # Pillow warns above its limit and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match=f"at most {limit} pixels"):
            open_image(tmp_path, "good.png")


def test_sixteen_bit_images_keep_their_contrast(tmp_path):
    Image.fromarray(np.linspace(1000, 4000, 16, dtype=np.uint16).reshape(4, 4)).save(tmp_path / "deep.png")
    values = np.asarray(open_image(tmp_path, "deep.png"))[..., 0]
    assert (values.min(), values.max(), len(np.unique(values))) == (0, 255, 16)


def test_pixels_that_are_no_number_leave_the_contrast_of_the_others(tmp_path):
    values = np.linspace(1000, 4000, 16, dtype=np.float32).reshape(4, 4)
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "map.tif")
    shown = np.asarray(open_image(tmp_path, "map.tif"))[..., 0]
    assert shown[0].tolist() == [0, 255, 0, 0]
    assert len(np.unique(shown)) == 13
    Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)).save(tmp_path / "none.tif")
    assert not np.asarray(open_image(tmp_path, "none.tif")).any()


def test_bad_images_raise_or_are_counted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    records = [Record(str(i), name, (Turn("q", "a"),)) for i, name in enumerate(["good.png", "bad.png", "bad.png"])]
    with pytest.raises(ImageError, match=r"record '1': .*bad.png"):
        check_images(records, tmp_path, skip_bad=False)
    kept, skipped, reason = check_images(records, tmp_path, skip_bad=True)
    assert ([record.id for record in kept], skipped) == (["0"], 2)
    assert reason is not None
    assert "bad.png" in reason


def test_real_files_are_read(data_folder):
    folder = data_folder / "medvqa"
    assert len(read_records(folder / "vqa_rad" / "train_w_options_new_with_images.json")) == 347
    assert len(read_records(folder / "vqa_rad" / "test_w_options_new.json")) == 451
    conversations = read_records(folder / "llava_med" / "instruct_sample_from_qa50.json")
    assert {len(record.turns) for record in conversations} == {1, 2, 3}
    with pytest.raises(ValueError, match=r"at sample 0 of .* and at sample 1 of"):
        read_records(folder / "pathvqa" / "test_w_options_new.json")
    assert len(read_records(folder / "pathvqa" / "test_w_options_new.json", allow_duplicate_ids=True)) == 400
