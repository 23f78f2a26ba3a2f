"""Conversation formats: one text for training and generation, and the place of every answer in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlavaProcessor

from exgra_adapter.models import build_tiny_model
from exgra_adapter.prompts import (
    IMAGE_TAG,
    ChatTemplatePrompt,
    LlavaPrompt,
    PromptFormat,
    ReleasedPrompt,
    Turns,
    clean_answer,
    prompt_format,
    question_prompt,
)

# A template in the manner of the models that name their roles by tokens, and one in that of LLaVA-1.5.
TOKENS = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WORDS = (
    "{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %} {{ eos_token }}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
WITHOUT_STOP = WORDS.replace(" {{ eos_token }}", "")
CHANGES_EARLIER_TURNS = TOKENS.replace(
    "{{ part['text'] }}", "{{ part['text'] if loop.index0 or messages | length < 3 }}"
)
WITHOUT_IMAGE = TOKENS.replace("<image>\n", "")
THINKS = TOKENS.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>\n{% endif %}")


def processor(template: str | None = TOKENS) -> LlavaProcessor:
    made = build_tiny_model(["Is there a lesion?", "yes"], seed=0)[1]
    made.chat_template = template
    return made


FORMATS: dict[str, PromptFormat] = {
    "llava": LlavaPrompt("</s>"),
    "released": ReleasedPrompt(),
    "tokens": ChatTemplatePrompt(processor(TOKENS)),
    "words": ChatTemplatePrompt(processor(WORDS)),
}

# What `parse_sample` lets through: no white space on either side, any characters inside, also the formats' own words.
texts = (
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        st.sampled_from(["yes", "ASSISTANT: no", "USER:", "### Human".replace("#", ""), "{{ x }}", "a\nb", "1.5 %"]),
    )
    .map(str.strip)
    .filter(lambda text: text and not any(each in text for each in ("###", "</s>", IMAGE_TAG)))
)
conversations = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


@pytest.fixture(params=sorted(FORMATS))
def prompt(request) -> PromptFormat:
    return FORMATS[request.param]


@given(turns=conversations, name=st.sampled_from(sorted(FORMATS)))
def test_a_question_is_put_as_it_was_taught(turns, name):
    """The prompt of every question is how the conversation up to its answer begins, and the answer is the rest."""
    prompt = FORMATS[name]
    text, spans = prompt.conversation(turns)
    assert text.count(IMAGE_TAG) == 1
    assert text.index(IMAGE_TAG) < spans[0][0]
    for index, ((question, answer), (start, end)) in enumerate(zip(turns, spans, strict=True)):
        asked = prompt.prompt(question, turns[:index])
        assert text[:start] == asked
        assert text[start:end].endswith(prompt.stop)
        assert clean_answer(text[start:end], prompt.stop) == answer
        assert text[start:end].count(prompt.stop) == 1


@given(turns=conversations, name=st.sampled_from(sorted(FORMATS)))
def test_words_are_never_glued(turns, name):
    """Image, question, roles and answers are apart from one another by white space or by a token."""
    text, spans = FORMATS[name].conversation(turns)
    borders = (" ", "\n", ">")
    place = 0
    for (question, answer), (start, _) in zip(turns, spans, strict=True):
        # A short question may occur in the names of the roles as well.
        found = [each.start() for each in re.finditer(re.escape(question), text) if place <= each.start() < start]
        assert any(text[at - 1] in borders and text[at + len(question)] in (*borders, "<") for at in found)
        answered = text.index(answer, start)
        assert text[answered - 1] in borders
        place = answered + len(answer)


def test_llava():
    text, spans = LlavaPrompt("</s>").conversation([("Is there a lesion?", "yes"), ("Where?", "left")])
    assert text == "USER: <image>\nIs there a lesion? ASSISTANT: yes</s>USER: Where? ASSISTANT: left</s>"
    assert [text[start:end] for start, end in spans] == [" yes</s>", " left</s>"]
    assert question_prompt("Where?", first=False) == "USER: Where? ASSISTANT:"


def test_released():
    text, spans = ReleasedPrompt().conversation([("Is there a lesion?", "yes"), ("Where?", "left")])
    system, _, rest = text.partition("###")
    assert system.startswith("A chat between a curious human")
    assert rest == (
        " Human: Is there a lesion?\n<im_start><image><im_end>\n### Assistant: yes\n###"
        " Human: Where?\n### Assistant: left\n###"
    )
    assert [text[start:end] for start, end in spans] == [" yes\n###", " left\n###"]


def test_chat_templates():
    prompt = FORMATS["tokens"]
    assert prompt.prompt("Where?") == "<|user|>\n<image>\nWhere?</s>\n<|assistant|>\n", (
        "the tokenizer adds its first token itself; the template's would double it"
    )
    text, spans = prompt.conversation([("Where?", "left")])
    assert text[slice(*spans[0])] == "left</s>", "the line break behind the stop is not learned"
    keeps = processor(TOKENS)
    keeps.tokenizer.backend_tokenizer.post_processor = None
    assert ChatTemplatePrompt(keeps).prompt("Where?").startswith("<s><|user|>"), "here nobody else adds it"


def test_the_stop_is_what_the_template_puts_behind_answers():
    """Not every model ends its turns with the tokenizer's end-of-sequence token."""
    made = processor(TOKENS.replace("</s>\n", "<end_of_turn>\n"))
    made.tokenizer.add_tokens(["<end_of_turn>", "<end"])
    prompt = ChatTemplatePrompt(made)
    assert prompt.stop == "<end_of_turn>"
    text, spans = prompt.conversation([("Where?", "left")])
    assert text[slice(*spans[0])] == "left<end_of_turn>"
    assert "<end_of_turn>" in prompt.reserved


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "must have a chat template; got LlavaProcessor without one"),
        (WITHOUT_STOP, "must end an answer with a token of its own"),
        (WITHOUT_IMAGE, "must show the image once"),
        ("{% for message in messages %}{{ message['content'] }}</s>{% endfor %}", "must show the image once"),
    ],
)
def test_templates_that_cannot_be_trained_with_are_refused(template, message):
    with pytest.raises(ValueError, match=message):
        ChatTemplatePrompt(processor(template))


@pytest.mark.parametrize("template", [THINKS, CHANGES_EARLIER_TURNS])
def test_templates_that_ask_otherwise_than_they_teach_are_refused(template):
    prompt = ChatTemplatePrompt(processor(template))
    with pytest.raises(ValueError, match=r"repeat earlier turns and answers unchanged; got another text for turn \d"):
        prompt.conversation([("Where?", "left"), ("Why?", "because")])


def test_formats_by_name():
    made: Any = processor()
    assert isinstance(prompt_format("llava", made), LlavaPrompt)
    assert prompt_format("llava", made).stop == "</s>"
    assert isinstance(prompt_format("chat_template", made), ChatTemplatePrompt)
    with pytest.raises(
        ValueError, match=r"must know <im_start> and <im_end> for prompt=released; got one without <im_s"
    ):
        prompt_format("released", made)
    made.tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    assert isinstance(prompt_format("released", made), ReleasedPrompt)
    with pytest.raises(ValueError, match="must be llava, released or chat_template; got 'alpaca'"):
        prompt_format("alpaca", made)


def test_every_format_reserves_what_structures_it():
    assert FORMATS["llava"].reserved == {IMAGE_TAG, "</s>"}
    assert FORMATS["released"].reserved == {IMAGE_TAG, "###", "<im_start>", "<im_end>"}
    assert FORMATS["tokens"].reserved == {IMAGE_TAG, "</s>"}


def test_a_conversation_of_no_turns_is_the_beginning(prompt):
    nothing: Turns = []
    text, spans = prompt.conversation(nothing)
    assert spans == []
    assert IMAGE_TAG not in text
    assert prompt.prompt("Where?").startswith(text)


def test_generated_answers_are_cleaned():
    assert clean_answer(" left lung \n") == "left lung"
    assert clean_answer(" left lung\n### Human: more", "###") == "left lung"
    assert clean_answer("#1", "###") == "#1"
