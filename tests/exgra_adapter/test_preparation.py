"""Public data sets in the training format: small sources of our own, good and broken."""

import gzip
import itertools
import json
import lzma
import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exgra_adapter.cli import main
from exgra_adapter.data.preparation.llava_med import LlavaMed
from exgra_adapter.data.preparation.pathvqa import PathVqa
from exgra_adapter.data.preparation.prepare import Preparation, prepare
from exgra_adapter.data.preparation.rows import Row, vqa_sample
from exgra_adapter.data.preparation.slake import Slake
from exgra_adapter.data.preparation.subsets import nested_order, split_rows
from exgra_adapter.data.preparation.vqa_rad import VqaRad
from exgra_adapter.data.records import read_records

PARTIAL = Preparation(partial=True)


@pytest.fixture(autouse=True)
def picture(request, monkeypatch):
    """Draws pictures only for tests that say so in their name: drawing takes most of the time."""
    if "picture" not in request.node.name:
        monkeypatch.setattr(
            "exgra_adapter.data.preparation.prepare.plot_statistics", lambda facts, path: path.write_bytes(b"")
        )


def rad_row(qid, question="Is it big?", answer="Yes", kind="CLOSED", phrase="freeform", frame="NULL", image=None):
    return {
        "qid": qid,
        "phrase_type": phrase,
        "image_name": image or f"{qid}.jpg",
        "image_organ": "HEAD",
        "question": question,
        "question_frame": frame,
        "question_type": "SIZE",
        "answer": answer,
        "answer_type": kind,
    }


def slake_row(qid, question="Is it big?", answer="Yes", kind="CLOSED", language="en"):
    about = {"modality": "CT", "location": "Lung", "content_type": "Size", "q_lang": language}
    return about | {
        "qid": qid,
        "img_name": f"{qid}/source.jpg",
        "question": question,
        "answer": answer,
        "answer_type": kind,
    }


def path_row(image, *pairs):
    return {
        "img_id": image,
        "sentf": {"pvqa": [question for question, _ in pairs]},
        "labelf": {"pvqa": [{answer: 1} for _, answer in pairs]},
    }


def talk(number, question="Describe it.\n<image>", answer="A chest X-ray.", key="conversatons"):
    messages = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": str(number), "image": f"{number}.jpg", key: messages}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def samples(folder, split="train"):
    return json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))


def questions(folder, split="train"):
    return [sample["conversations"][0]["value"].removesuffix("\n<image>") for sample in samples(folder, split)]


@pytest.mark.parametrize(
    ("answer", "kind", "ends"),
    [
        ("yes", "CLOSED", True),
        (" No ", "CLOSED ", True),
        ("YES", "closed", True),
        ("left", "CLOSED", False),
        ("no", "OPEN", False),
        ("not seen", "CLOSED", False),
        (4, "CLOSED", False),
    ],
)
def test_options_end_closed_questions_with_a_yes_or_no_answer_only(answer, kind, ends):
    with_options = vqa_sample(1, "a.jpg", "Is it? ", answer, "row 0", kind)
    without = vqa_sample(1, "a.jpg", "Is it? ", answer, "row 0", kind, options=False)
    suffix = ' (Answer with either "Yes" or "No").' if ends else ""
    assert with_options["conversations"][0]["value"] == f"Is it?{suffix}\n<image>"
    assert without["conversations"][0]["value"] == "Is it?\n<image>"
    assert with_options["conversations"][1]["value"] == str(answer).strip()
    assert with_options["answer_type"] == kind.strip().upper()


def test_vqa_rad_templates_train_and_are_no_candidates(tmp_path):
    rows = [
        rad_row(0, "Where is it?", "Left Lobe", "OPEN", frame="Where is the lesion located?"),
        rad_row(1, "Is it big?", "no", phrase="test_freeform", frame="Is the lesion big?"),
        rad_row(2, "How many?", 2, "OPEN", phrase="para"),
        rad_row(3, "Wo ist die Läsion?", "Überall", "OPEN", phrase="test_para"),
    ]
    facts = prepare(VqaRad(write(tmp_path / "any name.json", rows)), tmp_path / "out", PARTIAL)
    train, test = samples(tmp_path / "out"), samples(tmp_path / "out", "test")
    assert [sample["id"] for sample in train] == ["1", "2", "4", "5"]
    assert [sample["id"] for sample in test] == ["3", "6"]
    assert facts["test_rephrasings"] == {"rows": 1, "kept": True}
    assert json.loads((tmp_path / "out/candidates.json").read_text()) == {"0": ["left lobe", "2"]}
    assert test[1]["conversations"][1]["value"] == "Überall"
    assert read_records(tmp_path / "out/train.json")[2].answer_type == "CLOSED"
    assert [(sample["question_type"], sample["location"]) for sample in test] == [("SIZE", "HEAD")] * 2


def test_counts_are_compared_with_the_published_ones(tmp_path):
    source = VqaRad(write(tmp_path / "rad.json", [rad_row(0), rad_row(1, phrase="test_freeform")]))
    with pytest.raises(ValueError, match=r"1 instead of 3064 train rows.*1 instead of 451 test rows.*0 instead of 179"):
        prepare(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "rad.json"]


@pytest.mark.parametrize(("language", "ids"), [("en", ["1", "3"]), ("zh", ["2"]), ("all", ["1", "2", "3"])])
def test_slake_languages(tmp_path, language, ids):
    rows = [slake_row(1), slake_row(2, "有肺吗？", "是", language="zh"), slake_row(3, answer="")]
    write(tmp_path / "slake/train.json", rows[:2])
    write(tmp_path / "slake/validate.json", [slake_row(3)])
    prepare(Slake(tmp_path / "slake", language), tmp_path / "out", PARTIAL)
    found = [sample["id"] for split in ("train", "validation") for sample in _if_there(tmp_path / "out", split)]
    assert found == ids


def _if_there(folder, split):
    return samples(folder, split) if (folder / f"{split}.json").exists() else []


def test_rows_without_an_answer_are_left_out_and_counted(tmp_path, caplog):
    rows = [slake_row(1), slake_row(2, answer="  ")]
    source = write(tmp_path / "train.json", rows)
    facts = prepare(Slake(source), tmp_path / "out", PARTIAL)
    assert [sample["id"] for sample in samples(tmp_path / "out")] == ["1"]
    assert facts["skipped_rows"]["rows"] == 1
    assert "row 1 of" in caplog.text
    assert "1 rows of the source are left out" in (tmp_path / "out/statistics.md").read_text()


def test_pathvqa_numbers_the_questions_of_an_image(tmp_path):
    rows = [path_row("test_0001", ("What is it?", "a cell"), ("Is it?", "yes")), path_row("val_2", ("Is it?", "no"))]
    write(tmp_path / "path/pvqa_test.json", rows[:1])
    write(tmp_path / "path/pvqa_val.json", rows[1:])
    prepare(PathVqa(tmp_path / "path"), tmp_path / "out", PARTIAL)
    test = samples(tmp_path / "out", "test")
    assert [(s["id"], s["image"], s["answer_type"]) for s in test] == [
        ("test_0001-0", "test/test_0001.jpg", "OPEN"),
        ("test_0001-1", "test/test_0001.jpg", "CLOSED"),
    ]
    assert samples(tmp_path / "out", "validation")[0]["image"] == "val/val_2.jpg"
    prepare(PathVqa(tmp_path / "path", ids="image"), tmp_path / "same", PARTIAL)
    assert [sample["id"] for sample in samples(tmp_path / "same", "test")] == ["test_0001"] * 2


class Harmful:
    """A pickle of it would make a folder when it is read."""

    def __reduce__(self):
        from pathlib import Path

        return Path.mkdir, (Path("unpickled"),)


@pytest.mark.parametrize("name", ["train_vqa.pkl", "train.json"])
@pytest.mark.parametrize("layout", [PathVqa, Slake, VqaRad, LlavaMed])
def test_pickles_are_never_opened(tmp_path, monkeypatch, layout, name):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source" / name
    source.parent.mkdir()
    source.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match=r"pickle, which can run any code"):
        prepare(layout(source), tmp_path / "out", PARTIAL)
    if layout is PathVqa:
        with pytest.raises(ValueError, match=r"pickle, which can run any code"):
            prepare(layout(source.parent), tmp_path / "out", PARTIAL)
    assert not (tmp_path / "unpickled").exists()


def test_llava_med_keys_are_corrected(tmp_path):
    sample = talk(1) | {"domain": {"mri": False, "ct_scan": True}}
    sample["conversatons_long"] = talk(1, answer="A chest X-ray of an adult.")["conversatons"]
    prepare(LlavaMed(write(tmp_path / "a.json", [sample, talk(2, key="conversations")])), tmp_path / "out")
    first, second = samples(tmp_path / "out")
    assert list(first) == ["id", "image", "modality", "conversations", "conversations_long"]
    assert first["modality"] == "ct_scan"
    assert second["conversations"][1]["value"] == "A chest X-ray."
    assert read_records(tmp_path / "out/train.json")[0].turns[0].extended_answer == "A chest X-ray of an adult."
    assert not (tmp_path / "out/candidates.json").exists()


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_compressed_sources_are_read_whatever_their_name(tmp_path, compress):
    content = compress(json.dumps([talk(1), talk(2)]).encode())
    for name in ("a.json", "a.json.gz", "a.json.xz"):
        (tmp_path / name).write_bytes(content)
        prepare(LlavaMed(tmp_path / name), tmp_path / f"out-{name}")
        assert len(samples(tmp_path / f"out-{name}")) == 2
    (tmp_path / "cut.json.xz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.json\.xz must be a readable file"):
        prepare(LlavaMed(tmp_path / "cut.json.xz"), tmp_path / "cut")


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        (LlavaMed, "", r"must be JSON; got an error at line 1"),
        (LlavaMed, "[]", r"must have at least one row; got none"),
        (LlavaMed, '{"a": 1}', r"must hold a JSON list of samples; got an object"),
        (LlavaMed, [talk(1), 7], r"row 1 of .* must be a JSON object; got a number"),
        (LlavaMed, [{"id": 1}], r"row 0 of .* got a row without image"),
        (LlavaMed, [talk(1), talk(1)], r"row 1 of .* id of its own; got '1'.*row 0"),
        (LlavaMed, [talk(1, answer="")], r"must not be empty.*--bad-rows skip"),
        (LlavaMed, [talk(1) | {"image": "../secret.jpg"}], r"must stay inside the image folder"),
        (VqaRad, [rad_row(0) | {"question": None}], r"question must be a text; got null"),
        (VqaRad, [rad_row(0) | {"answer_type": "BOTH"}], r"'answer_type' must be \"OPEN\" or \"CLOSED\"; got 'BOTH'"),
        (VqaRad, [{"question": "?"}], r"got a row without phrase_type"),
        (PathVqa, [path_row("scan_1", ("?", "a"))], r"must begin with train_, val_ or test_; got 'scan_1'"),
        (PathVqa, [path_row("test_1") | {"labelf": {"pvqa": [{"a": 1}]}}], r"got 0 questions and 1 answers"),
        (PathVqa, [path_row("test_1", ("?", "a")) | {"labelf": {"pvqa": ["a"]}}], r"answer 0 must be .*got a text"),
    ],
)
def test_broken_sources_are_refused_with_the_place(tmp_path, layout, content, message):
    with pytest.raises(ValueError, match=message):
        prepare(layout(write(tmp_path / "source.json", content)), tmp_path / "out", PARTIAL)
    assert not (tmp_path / "out").exists()


def test_bad_rows_can_be_skipped(tmp_path):
    source = write(tmp_path / "a.json", [talk(1), talk(2, answer=""), 7, talk(3)])
    facts = prepare(LlavaMed(source), tmp_path / "out", Preparation(bad_rows="skip"))
    assert [sample["id"] for sample in samples(tmp_path / "out")] == ["1", "3"]
    assert facts["skipped_rows"]["rows"] == 2


def test_missing_images_are_counted_kept_or_dropped(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "images" / "2.jpg")
    source = LlavaMed(write(tmp_path / "a.json", [talk(1), talk(2)]))
    kept = prepare(source, tmp_path / "kept", Preparation(images=tmp_path / "images"))
    dropped = prepare(source, tmp_path / "dropped", Preparation(images=tmp_path / "images", missing_images="drop"))
    assert len(samples(tmp_path / "kept")) == 2
    assert [sample["id"] for sample in samples(tmp_path / "dropped")] == ["2"]
    assert kept["missing_images"]["images"] == dropped["missing_images"]["images"] == 1
    assert kept["missing_images"]["examples"] == ["1.jpg"]
    (tmp_path / "images" / "2.jpg").unlink()
    with pytest.raises(ValueError, match="must hold images of the data set; got none"):
        prepare(source, tmp_path / "none", Preparation(images=tmp_path / "images", missing_images="drop"))


def test_subsets_are_nested_and_do_not_depend_on_the_order(tmp_path):
    rows = [slake_row(n, f"Question {n}?", *(("Yes", "CLOSED") if n % 3 else ("Lung", "OPEN"))) for n in range(200)]
    how = Preparation(partial=True, percents=(5, 10, 50), row_counts=(7,), seed=3)
    prepare(Slake(write(tmp_path / "train.json", rows)), tmp_path / "out", how)
    prepare(Slake(write(tmp_path / "again" / "train.json", rows[::-1])), tmp_path / "out2", how)
    names = ["train_7_rows", "train_5_percent", "train_10_percent", "train_50_percent", "train"]
    chosen = [{sample["id"] for sample in samples(tmp_path / "out", name)} for name in names]
    assert [len(ids) for ids in chosen] == [7, 10, 20, 100, 200]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(chosen))
    assert chosen[2] == {sample["id"] for sample in samples(tmp_path / "out2", "train_10_percent")}
    kinds = Counter(sample["answer_type"] for sample in samples(tmp_path / "out", "train_10_percent"))
    assert kinds == {"OPEN": 7, "CLOSED": 13}
    other = Preparation(partial=True, percents=(10,), seed=4)
    prepare(Slake(tmp_path / "train.json"), tmp_path / "out3", other)
    assert chosen[2] != {sample["id"] for sample in samples(tmp_path / "out3", "train_10_percent")}


@given(opened=st.integers(0, 40), closed=st.integers(0, 40), seed=st.integers(0, 5))
def test_every_beginning_of_the_order_has_the_shares_of_the_whole(opened, closed, seed):
    kinds = ["OPEN"] * opened + ["CLOSED"] * closed
    rows = [Row("train", "", {"id": str(n), "answer_type": kind}) for n, kind in enumerate(kinds)]
    order = nested_order(rows, seed)
    assert sorted(order) == list(range(len(rows)))
    for size in range(1, len(rows) + 1):
        found = sum(kinds[position] == "OPEN" for position in order[:size])
        assert abs(found - size * opened / len(rows)) <= 1


@pytest.mark.parametrize("percents", [(0,), (101,), (float("nan"),)])
def test_impossible_percentages_are_refused(tmp_path, percents):
    source = LlavaMed(write(tmp_path / "a.json", [talk(1)]))
    with pytest.raises(ValueError, match="above 0 and at most 100"):
        prepare(source, tmp_path / "out", Preparation(percents=percents))
    with pytest.raises(ValueError, match=r"at least 1 and at most 1 rows.*got 2"):
        prepare(source, tmp_path / "out", Preparation(row_counts=(2,)))


def test_splits_are_made_by_image_and_only_where_there_are_none(tmp_path):
    rows = [path_row(f"train_{n}", ("Is it?", "yes"), ("What?", f"cell {n}")) for n in range(20)]
    source = PathVqa(write(tmp_path / "a.json", rows))
    how = Preparation(partial=True, splits={"validation": 10, "test": 25})
    prepare(source, tmp_path / "out", how)
    images = {
        split: {s["image"] for s in samples(tmp_path / "out", split)} for split in ("train", "validation", "test")
    }
    assert {split: len(names) for split, names in images.items()} == {"train": 13, "validation": 2, "test": 5}
    assert len(set.union(*images.values())) == 20
    answers = json.loads((tmp_path / "out/candidates.json").read_text())["0"]
    assert len(answers) == 13  # the answers of other splits are no candidates
    with pytest.raises(ValueError, match="must be made only where the source has none"):
        split_rows([Row("test", "", {"image": "a"})], {"test": 10}, 0)
    with pytest.raises(ValueError, match="must leave images for training"):
        prepare(source, tmp_path / "more", Preparation(partial=True, splits={"validation": 60, "test": 60}))


def test_output_is_replaced_only_on_request_and_only_if_made_here(tmp_path):
    first = LlavaMed(write(tmp_path / "a.json", [talk(1)]))
    second = LlavaMed(write(tmp_path / "b.json", [talk(2), talk(3)]))
    prepare(first, tmp_path / "out", Preparation(percents=(50,)))
    with pytest.raises(ValueError, match="must be a new or empty folder"):
        prepare(second, tmp_path / "out")
    broken = LlavaMed(write(tmp_path / "c.json", [talk(4), 7]))
    with pytest.raises(ValueError, match="JSON object"):
        prepare(broken, tmp_path / "out", Preparation(overwrite=True))
    assert [sample["id"] for sample in samples(tmp_path / "out")] == ["1"]
    prepare(second, tmp_path / "out", Preparation(overwrite=True))
    assert [sample["id"] for sample in samples(tmp_path / "out")] == ["2", "3"]
    assert not (tmp_path / "out/train_50_percent.json").exists()
    write(tmp_path / "mine/note.txt", "precious")
    with pytest.raises(ValueError, match="something else in it"):
        prepare(second, tmp_path / "mine", Preparation(overwrite=True))
    assert (tmp_path / "mine/note.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json", "c.json", "mine", "out"]


def test_statistics_and_picture_say_what_test_and_training_data_share(tmp_path):
    write(tmp_path / "s/train.json", [slake_row(1, "Is it  BIG?"), slake_row(2, "Where?", "Lung", "OPEN")])
    same_image = slake_row(3, "Is it big?") | {"img_name": "1/source.jpg"}
    write(tmp_path / "s/test.json", [same_image, slake_row(4, "Where?", "Lung | Liver", "OPEN")])
    facts = prepare(Slake(tmp_path / "s"), tmp_path / "out", PARTIAL)
    assert facts["shared"] == {"test": {"images": 1, "rows_with_image": 1, "questions": 1}}
    assert facts["splits"]["train"]["modalities"] == {"CT": 2}
    assert facts["splits"]["test"]["answer_words"]["maximum"] == 3
    report = (tmp_path / "out/statistics.md").read_text()
    assert "1 of 2 images of the test split (1 of its samples) are in the training data too, 1 with the same" in report
    assert "| Size | 2 (100.0 %) | 2 (100.0 %) |" in report
    assert json.loads((tmp_path / "out/statistics.json").read_text()) == facts
    with Image.open(tmp_path / "out/statistics.png") as picture:
        assert min(picture.size) > 500


def test_the_same_source_gives_the_same_bytes_and_picture(tmp_path):
    source = PathVqa(write(tmp_path / "a.json", [path_row(f"train_{n}", ("Is it?", "yes")) for n in range(9)]))
    how = Preparation(partial=True, percents=(20,), splits={"validation": 20})
    prepare(source, tmp_path / "one", how)
    prepare(source, tmp_path / "two", how)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 6
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_the_command_prepares_what_training_reads(tmp_path, capsys):
    source = write(tmp_path / "a.json", [path_row("test_1", ("Is it?", "yes"), ("What?", "cell"))])
    arguments = ["data", "prepare", "pathvqa", str(source), "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "2 instead of 6761 test rows" in capsys.readouterr().err
    assert main([*arguments, "--partial", "--answer-options", "none", "--ids", "image"]) == 0
    assert "test.json          2 samples (1 open, 1 closed), 1 images" in capsys.readouterr().out
    assert questions(tmp_path / "out", "test") == ["Is it?", "What?"]
    assert main([*arguments, "--partial"]) == 1
    assert main([*arguments, "--partial", "--overwrite"]) == 0
    assert main(["data", "prepare", "mimic", str(source), "--output", "x"]) == 2
    assert main(["data", "prepare", "llava-med", str(tmp_path / "none.json"), "--output", str(tmp_path / "o")]) == 1
    assert "must be an existing file" in capsys.readouterr().err


def test_folders_without_the_files_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for layout in (VqaRad, Slake, PathVqa, LlavaMed):
        with pytest.raises(ValueError, match=r"got .*empty|got the folder"):
            prepare(layout(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"must say which split it is.*got other\.json"):
        prepare(Slake(write(tmp_path / "other.json", "[]")), tmp_path / "out")
