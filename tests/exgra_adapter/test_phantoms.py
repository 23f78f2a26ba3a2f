"""Pictures and texts of the demo: deterministic, consistent with their ground truth, new where they are held out."""

import itertools

import numpy as np
import pytest
from PIL import Image

from exgra_adapter.data.records import read_records
from exgra_adapter.demo.dataset import write_dataset
from exgra_adapter.demo.phantoms import draw_phantom
from exgra_adapter.demo.scenes import MODALITIES, ORGANS, Scene, ask

SIZES = {"train_pictures": 12, "test_pictures": 6, "questions": 2, "console_progress": False}


def draw(scene, seed=0):
    return draw_phantom(scene, np.random.default_rng(seed)).astype(float)


@pytest.mark.parametrize(("modality", "organ"), list(itertools.product(MODALITIES, ORGANS)))
def test_picture_is_deterministic_and_uses_the_grey_scale(modality, organ):
    scene = Scene(modality, organ, 2, "left", "large")
    picture = draw(scene)
    assert picture.shape == (64, 64)
    assert np.array_equal(picture, draw(scene))
    assert not np.array_equal(picture, draw(scene, seed=1))
    assert picture.max() - picture.min() > 120


@pytest.mark.parametrize(("modality", "organ"), list(itertools.product(MODALITIES, ORGANS)))
def test_lesions_change_the_side_they_are_on(modality, organ):
    # The pose is drawn first, so that both pictures show the same anatomy up to the noise.
    healthy = np.mean([draw(Scene(modality, organ, 0), seed) for seed in range(6)], axis=0)
    changes = {}
    for side in ("left", "right"):
        ill = np.mean([draw(Scene(modality, organ, 3, side, "large"), seed) for seed in range(6)], axis=0)
        change = np.abs(ill - healthy)
        changes[side] = change[:, :32].sum() / change.sum()
    assert changes["left"] > 0.6
    assert changes["right"] < 0.4


def test_large_lesions_are_larger_than_small_ones():
    def lesion_area(size):
        pairs = ((draw(Scene("MRI", "brain", 2, "left", size), s), draw(Scene("MRI", "brain", 0), s)) for s in range(6))
        return sum((np.abs(ill - healthy) > 60).sum() for ill, healthy in pairs)

    assert lesion_area("large") > 2 * lesion_area("small")


@pytest.mark.parametrize("arguments", [(4, "left", "small"), (-1,), (0, "left", "small"), (1,), (2, "left")])
def test_scene_refuses_attributes_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match=r"^Scene: "):
        Scene("CT", "liver", *arguments)


def test_questions_agree_with_the_scene():
    generator = np.random.default_rng(0)
    for _ in range(300):
        scene = Scene.draw(generator)
        for topic in scene.topics():
            question = ask(scene, topic, generator)
            turn = question.turn
            assert turn.extended_answer
            if question.answer_type == "OPEN":
                truth = {"count": ("zero", "one", "two", "three")[scene.count]}.get(topic) or getattr(scene, topic)
                assert turn.answer == truth
                continue
            assert turn.extended_answer.lower().startswith(f"{turn.answer}.")
            if topic != "presence":
                value = getattr(scene, topic)
                assert (turn.answer == "yes") == (value in turn.question.rstrip("?").split(" "))


def test_propositions_are_true_about_half_of_the_time():
    generator = np.random.default_rng(0)
    scene = Scene("CT", "liver", 1, "left", "small")
    answers = [q.turn.answer for q in (ask(scene, "organ", generator) for _ in range(900)) if q.answer_type == "CLOSED"]
    assert len(answers) == pytest.approx(300, abs=60)
    assert answers.count("yes") / len(answers) == pytest.approx(0.5, abs=0.1)


def test_ask_refuses_a_topic_without_a_lesion():
    with pytest.raises(ValueError, match=r"^ask: topic must be one of"):
        ask(Scene("CT", "liver", 0), "side")


def test_dataset_is_deterministic_valid_and_held_out(tmp_path):
    first = write_dataset(tmp_path / "a", seed=3, **SIZES)
    second = write_dataset(tmp_path / "b", seed=3, **SIZES)
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(names) == 18 + 5
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert first.topics == second.topics
    used = {}
    for key in ("captions", "conversations", "vqa_train", "vqa_test", "conversations_test"):
        records = read_records(getattr(first, key))
        assert all(turn.extended_answer for record in records for turn in record.turns)
        used[key] = {Image.open(first.images / record.image).tobytes() for record in records}
    assert len(used["vqa_train"]) == 12
    assert not used["vqa_train"] & used["vqa_test"]
    assert not used["conversations"] & used["conversations_test"]


def test_a_larger_dataset_begins_with_the_smaller_one(tmp_path):
    small = write_dataset(tmp_path / "a", seed=0, **SIZES)
    large = write_dataset(tmp_path / "b", seed=0, **{**SIZES, "train_pictures": 14})
    assert read_records(large.conversations)[:12] == read_records(small.conversations)


@pytest.mark.parametrize("wrong", [{"train_pictures": 0}, {"test_pictures": 0}, {"questions": 5}])
def test_dataset_refuses_sizes_out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"^write_dataset: "):
        write_dataset(tmp_path, seed=0, **{**SIZES, **wrong})
