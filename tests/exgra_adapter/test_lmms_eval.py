"""Test files as tasks of lmms-eval: the YAML is loaded as lmms-eval does, and its functions are run."""

import argparse
import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from exgra_adapter.data.records import Record, Turn, write_records
from exgra_adapter.evaluation import lmms_eval_command
from exgra_adapter.evaluation.files import Prediction
from exgra_adapter.evaluation.lmms_eval import export_lmms_eval
from exgra_adapter.evaluation.metrics import score

RECORDS = [
    Record("1", "a.png", (Turn('Größe? "klein"\nor: big', "left lung"),), "OPEN"),
    Record("2", "sub/b.png", (Turn("Is it a lung?", "no"),), "CLOSED"),
    Record("3", "a.png", (Turn("Is it?", "Yes"),)),
]
ANSWERS = ["The lung.", "No, normal.", "no"]


@pytest.fixture
def source(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, value in (("a.png", 10), ("sub/b.png", 200)):
        Image.new("L", (4, 3), value).save(tmp_path / "images" / name)
    write_records(tmp_path / "test.json", RECORDS)
    return tmp_path


def load_task(folder: Path):
    """Loads the YAML; `!function utils.NAME` becomes the function of the file beside it."""
    (file,) = folder.glob("*.yaml")

    class Loader(yaml.SafeLoader):
        pass

    def construct_function(loader, node):
        module, name = loader.construct_scalar(node).rsplit(".", 1)
        specification = importlib.util.spec_from_file_location(module, folder / f"{module}.py")
        loaded = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(loaded)
        return getattr(loaded, name)

    Loader.add_constructor("!function", construct_function)
    return yaml.load(file.read_text(encoding="utf-8"), Loader)


def documents_of(task):
    lines = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.split("\n") if line]


def test_the_task_is_complete(source):
    assert export_lmms_eval(source / "test.json", source / "images", source / "VQA-rad: ß", task="vqa_rad") == 3
    assert sorted(p.name for p in (source / "VQA-rad: ß").iterdir()) == ["utils.py", "vqa_rad.jsonl", "vqa_rad.yaml"]
    task = load_task(source / "VQA-rad: ß")
    assert (task["task"], task["dataset_path"], task["test_split"]) == ("vqa_rad", "json", "test")
    assert task["output_type"] == "generate_until"
    assert task["generation_kwargs"]["do_sample"] is False
    documents = documents_of(task)
    assert [document["id"] for document in documents] == ["1", "2", "3"]
    assert [document["answer_type"] for document in documents] == ["OPEN", "CLOSED", "CLOSED"]


def test_its_functions_show_ask_and_score_like_evaluate_vqa(source):
    export_lmms_eval(source / "test.json", source / "images", source / "task", post_prompt='\nBe "brief": äöü')
    task = load_task(source / "task")
    documents = documents_of(task)
    (picture,) = task["doc_to_visual"](documents[1])
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (4, 3), (200, 200, 200))
    prompts = task["lmms_eval_specific_kwargs"]["default"]
    assert task["doc_to_text"](documents[0], prompts) == 'Größe? "klein"\nor: big\nBe "brief": äöü'
    assert task["doc_to_text"](documents[1]) == "Is it a lung?"
    assert [task["doc_to_target"](document) for document in documents] == ["left lung", "no", "Yes"]

    results = [task["process_results"](document, [said]) for document, said in zip(documents, ANSWERS, strict=True)]
    aggregated = {}
    for metric in task["metric_list"]:
        values = [result[metric["metric"]] for result in results if metric["metric"] in result]
        aggregated[metric["metric"]] = metric["aggregation"](values)
    said = [Prediction(record.id, 0, "", "", answer) for record, answer in zip(RECORDS, ANSWERS, strict=True)]
    expected = score(RECORDS, said)
    names = ("summary", "open_recall", "closed_accuracy", "exact_match")
    assert aggregated == {name: getattr(expected, name).value for name in names}
    assert aggregated["summary"] == 0.5
    assert task["process_results"](documents[1], [])["closed_accuracy"] == 0.0


def test_repeated_ids_of_images_are_accepted(source):
    write_records(source / "test.json", [RECORDS[0], RECORDS[0]])
    assert export_lmms_eval(source / "test.json", source / "images", source / "task") == 2


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "must hold at least one question"),
        ([Record("1", "a.png", (Turn("?", "a"), Turn("?", "b")))], {}, "must have one question; got 2 in record '1'"),
        ([*RECORDS, Record("4", "c.png", (Turn("?", "a"),))], {}, r"got 1 questions without, the first .*c\.png"),
        ([Record("4", "../c.png", (Turn("?", "a"),))], {}, "must stay inside the image folder|image"),
        (RECORDS, {"task": "vqa rad"}, "small letters, digits and underscores; got 'vqa rad'"),
    ],
)
def test_unsuitable_data_are_refused(source, records, options, message):
    write_records(source / "test.json", records)
    with pytest.raises(ValueError, match=message):
        export_lmms_eval(source / "test.json", source / "images", source / "task", **options)
    assert not (source / "task").exists()


def test_an_existing_folder_is_kept(source):
    (source / "task").mkdir()
    (source / "task" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        export_lmms_eval(source / "test.json", source / "images", source / "task")
    assert [path.name for path in (source / "task").iterdir()] == ["mine.txt"]


def test_the_command(source, capsys):
    parser = argparse.ArgumentParser()
    lmms_eval_command.add_parser(parser.add_subparsers())
    places = ["--data", source / "test.json", "--images", source / "images", "--output", source / "vqa_rad"]
    options = parser.parse_args(["export-lmms-eval", *map(str, places), "--max-new-tokens", "9"])
    assert options.run(options) == 0
    assert "3 questions" in capsys.readouterr().out
    assert load_task(source / "vqa_rad")["generation_kwargs"]["max_new_tokens"] == 9
