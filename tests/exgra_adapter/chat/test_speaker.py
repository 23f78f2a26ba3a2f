"""Answers token by token: those of the evaluation, stopped, refused, with a history that outgrows the context."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from exgra_adapter.atomic import write_json
from exgra_adapter.chat import speaker as speakers
from exgra_adapter.chat.conversation import MOST_QUESTION_CHARACTERS, Conversation, Exchange, open_chat_image
from exgra_adapter.chat.speaker import _begun
from exgra_adapter.data.images import ImageError
from exgra_adapter.data.limits import IMAGE_VARIABLE
from exgra_adapter.data.records import Turn, read_records
from exgra_adapter.evaluation.answering import draw_seed
from exgra_adapter.evaluation.generate import Query, generate_texts

QUESTIONS = ("Which organ is shown?", "Is a lesion visible?", "On which side?")


def conversation(setting, name: str = "0.png") -> Conversation:
    made = Conversation()
    made.show(open_chat_image(setting.images / name), setting.images / name)
    return made


@pytest.mark.parametrize("prompt", ["llava", "released", "chat_template"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_first_answers_are_those_of_the_evaluation(setting, make_speaker, prompt: str, temperature: float):
    speaker = make_speaker(prompt=prompt, temperature=temperature, seed=3)
    answers = []
    for name in ("0.png", "1.png"):
        talk = conversation(setting, name)
        growing = list(speaker.answer(talk, QUESTIONS[0]))
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(growing))
        query = Query(QUESTIONS[0], talk.image, seed=draw_seed(3, 0))
        [(expected, error)] = generate_texts(speaker.model, speaker.processor, speaker.prompt, [query], 12, temperature)
        assert error is None
        assert talk.exchanges == [Exchange(QUESTIONS[0], expected)]
        answers.append(expected)
    assert all(answers)
    # Noise may decide alone.
    assert temperature or answers[0] != answers[1]


def test_bytes_of_unfinished_characters_are_held_back(setting, make_speaker):
    speaker, talk = make_speaker(folder=setting.talkative, max_new_tokens=100), conversation(setting)
    growing = list(speaker.answer(talk, QUESTIONS[0]))
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(growing))
    query = Query(QUESTIONS[0], talk.image)
    assert generate_texts(speaker.model, speaker.processor, speaker.prompt, [query], 100) == [(growing[-1], None)]
    assert not growing[-1].isascii()


@pytest.mark.parametrize("prompt", ["llava", "released", "chat_template"])
def test_later_questions_follow_the_earlier_ones(setting, make_speaker, prompt: str):
    speaker, talk = make_speaker(prompt=prompt), conversation(setting)
    asked = []
    put = speaker.prompt.prompt
    speaker.prompt.prompt = lambda question, earlier=(): asked.append(put(question, earlier)) or asked[-1]
    for question in QUESTIONS:
        list(speaker.answer(talk, question))
    earlier = [(each.question, each.answer) for each in talk.exchanges]
    assert asked == [put(question, earlier[:place]) for place, question in enumerate(QUESTIONS)]
    assert all(text.count("<image>") == 1 for text in asked)
    assert all(f"{question}" in asked[2] for question in QUESTIONS)


def test_without_history_every_question_stands_alone(setting, make_speaker):
    speaker, talk = make_speaker(history=False), conversation(setting)
    for question in QUESTIONS:
        list(speaker.answer(talk, question))
    for exchange in talk.exchanges:
        alone = conversation(setting)
        list(speaker.answer(alone, exchange.question))
        assert alone.exchanges == [exchange]


def test_the_same_seed_draws_the_same_answers(setting, make_speaker):
    def answers(seed: int) -> list[str]:
        talk = conversation(setting)
        for question in QUESTIONS:
            list(make_speaker(temperature=2.0, seed=seed).answer(talk, question))
        return [exchange.answer for exchange in talk.exchanges]

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


def test_stopped_answers_are_kept_as_far_as_they_are(setting, make_speaker):
    speaker, talk = make_speaker(folder=setting.talkative, max_new_tokens=1900), conversation(setting)
    answer = speaker.answer(talk, QUESTIONS[0])
    seen = [next(answer), next(answer)]
    answer.stop()
    seen += list(answer)
    assert answer.stopped
    assert seen[1].startswith(seen[0])
    assert talk.exchanges == [Exchange(QUESTIONS[0], seen[-1], stopped=True)]
    assert len(speaker.processor.tokenizer(seen[-1])["input_ids"]) < 1500
    assert list(answer) == []  # nothing is recorded twice
    assert len(talk.exchanges) == 1


def test_answers_that_are_stopped_before_they_begin_leave_nothing(setting, make_speaker):
    speaker, talk = make_speaker(folder=setting.talkative, max_new_tokens=1900), conversation(setting)
    first = speaker.answer(talk, QUESTIONS[0])
    second = speaker.answer(talk, QUESTIONS[1])  # waits for the first
    second.stop()
    next(first)
    first.stop()
    list(first)
    assert list(second) == []
    assert [exchange.question for exchange in talk.exchanges] == [QUESTIONS[0]]


def test_an_interrupted_reader_loses_nothing(setting, make_speaker, monkeypatch):
    speaker, talk = make_speaker(), conversation(setting)
    list(speaker.answer(talk, QUESTIONS[0]))
    answer = speaker.answer(conversation(setting), QUESTIONS[0])
    read, calls = answer._read, []

    def interrupted(finished: bool) -> str:
        calls.append(finished)
        if len(calls) % 2:
            raise KeyboardInterrupt
        return read(finished)

    monkeypatch.setattr(answer, "_read", interrupted)
    while True:
        try:
            for _ in answer:
                time.sleep(0)
            break
        except KeyboardInterrupt:
            continue
    assert answer.text == talk.exchanges[0].answer
    assert len(calls) > 2


def test_the_oldest_exchanges_are_forgotten_where_the_context_is_full(setting, make_speaker):
    speaker, talk = make_speaker(folder=setting.forgetful, max_new_tokens=20), conversation(setting)
    lengths = []
    generate = speaker.model.generate
    speaker.model.generate = lambda **inputs: lengths.append(inputs["input_ids"].shape[1]) or generate(**inputs)
    for number in range(6):
        list(speaker.answer(talk, QUESTIONS[number % 3]))
    assert len(talk.exchanges) == 6
    assert 0 < talk.forgotten < 6
    assert max(lengths) <= 160
    assert sorted(lengths) != lengths
    forgotten = talk.forgotten
    with pytest.raises(
        ValueError, match=r"must have at most 180 tokens together; got \d+ of image and question and 20"
    ):
        speaker.answer(talk, "word " * 100)
    assert len(talk.exchanges) == 6
    assert talk.forgotten == forgotten


def test_answers_that_spell_special_tokens_are_not_read_again(setting, speaker):
    talk = conversation(setting)
    talk.exchanges.append(Exchange(QUESTIONS[0], "an <image> of </s>"))
    list(speaker.answer(talk, QUESTIONS[1]))
    fresh = conversation(setting)
    list(speaker.answer(fresh, QUESTIONS[1]))
    assert talk.exchanges[1] == fresh.exchanges[0]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "must not be empty"),
        (" \n", "must not be empty"),
        ("x" * (MOST_QUESTION_CHARACTERS + 1), f"at most {MOST_QUESTION_CHARACTERS} characters; got 4001"),
        ("What is <image>?", "must not spell a special token of the model; got '<image>'"),
        ("What is </s>?", "must not spell a special token"),
    ],
)
def test_questions_are_refused_in_a_sentence(setting, speaker, question: str, message: str):
    talk = conversation(setting)
    with pytest.raises(ValueError, match=message):
        speaker.answer(talk, question)
    assert talk.exchanges == []


def test_a_question_needs_an_image(speaker):
    with pytest.raises(ValueError, match="must follow an image"):
        speaker.answer(Conversation(), QUESTIONS[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "abacus"}, "device must be such as cpu, cuda or cuda:1; got 'abacus'"),
        ({"device": "cuda:77"}, r"device must be one that PyTorch sees; got cuda:77, and it sees \d+ of that kind"),
        ({"max_new_tokens": 0}, "must be at least 1"),
        ({"max_new_tokens": 2048}, "must be less than the 2048 tokens"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"folder": Path("nowhere")}, "must be a folder with a Hugging Face model"),
    ],
)
def test_settings_are_refused_in_a_sentence(make_speaker, changes, message: str):
    with pytest.raises(ValueError, match=message):
        make_speaker(**changes)


def test_a_full_memory_is_one_sentence(setting, make_speaker, monkeypatch):
    speaker, talk = make_speaker(), conversation(setting)

    def full(**_: object) -> None:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(speaker.model, "generate", full)
    with pytest.raises(ValueError, match="must fit into the memory of cpu"):
        list(speaker.answer(talk, QUESTIONS[0]))
    assert talk.exchanges == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("shapes differ\nmore"), "shapes differ"), (IndexError("no such token"), "no such token")],
)
def test_a_model_that_fails_leaves_the_conversation_as_it_was(setting, make_speaker, monkeypatch, error, reason):
    speaker = make_speaker(folder=setting.forgetful, max_new_tokens=30)
    talk = conversation(setting)
    while not talk.forgotten:
        list(speaker.answer(talk, QUESTIONS[0]))
    before = (list(talk.exchanges), talk.forgotten)

    def fail(*_: object, **__: object) -> None:
        raise error

    for owner, name in ((speaker.model, "generate"), (speakers, "model_inputs")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(ValueError, match=f"^chat: the model must be able to answer; got an error: {reason}. "):
                list(speaker.answer(talk, QUESTIONS[0]))
        assert (talk.exchanges, talk.forgotten) == before
    list(speaker.answer(talk, QUESTIONS[0]))
    assert len(talk.exchanges) == len(before[0]) + 1


def test_what_may_become_the_stop_is_held_back():
    assert [_begun(text, "###") for text in ("yes", "yes #", "yes ##", "#", "")] == [0, 1, 2, 1, 0]
    assert _begun("yes #", "") == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qqqqqqqq", r"must be an existing file; got .*qqqqqqqq\. Check the path"),
        ("brokn.png", r"Did you mean .*broken\.png\?"),
        (".", "must be a file; got the folder"),
        ("broken.png", "must be a readable image"),
        ("bomb.png", r"must have at most \d+ pixels; got more"),
        ("x" * 400, "chat: image must be"),
        ("a\0b", "chat: image must be"),
    ],
)
def test_images_are_refused_in_a_sentence(setting, name: str, message: str):
    with pytest.raises(ImageError, match=message) as refusal:
        open_chat_image(setting.images / name)
    assert "\n" not in str(refusal.value)


def test_large_files_are_not_opened(setting, monkeypatch):
    monkeypatch.setenv(IMAGE_VARIABLE, "100")
    with pytest.raises(ImageError, match=rf"at most 100 bytes; got more.*{IMAGE_VARIABLE}"):
        open_chat_image(setting.images / "0.png")


def test_saved_conversations_are_training_data(tmp_path: Path):
    talk = Conversation(Image.new("RGB", (2, 2)), Path("folder/a.png"))
    talk.exchanges += [Exchange("Which?", ""), Exchange("What?", "a"), Exchange("Where?", "b", stopped=True)]
    write_json(tmp_path / "chat.json", [talk.to_json()])
    [record] = read_records(tmp_path / "chat.json")
    assert record.image == "a.png"
    assert record.turns == (Turn("What?", "a"), Turn("Where?", "b"))
