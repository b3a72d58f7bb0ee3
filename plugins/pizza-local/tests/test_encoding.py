# SPDX-License-Identifier: Apache-2.0
"""Prompts as token ids: templates once, every token knows where it comes from, no text is lost."""

import copy
import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import tiny

from pizza.errors import BadRequestError, ConfigError
from pizza.prompt import Message, Prompt

pytestmark = pytest.mark.torch

pizza_local = pytest.importorskip("pizza_local.encoding")
units = pytest.importorskip("pizza_local.units")
Encoder = pizza_local.Encoder

BYTES = tiny.byte_tokenizer()
CHAT = tiny.byte_tokenizer(chat=True)
WORDS = tiny.word_tokenizer()

HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['role'] }}\n"
    "{{ m['content'] | trim }}\n<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>assistant\n{% endif %}"
)
"""Strips, and writes the role's name as plain text in front, as Llama 3 does."""

LEFT_ONLY = HEADERS.replace("m['content'] | trim", "m['content'].lstrip('\\n')")
SYSTEM_FIRST = (
    "{% for m in messages %}{% if m['role'] == 'user' and loop.last and "
    "messages[0]['role'] == 'system' %}<|user|>{{ messages[0]['content'] }}\n{{ m['content'] }}"
    "<|end|>{% elif m['role'] != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Puts the system's message into the last question, as Mistral does."""

CHANGES_WITH_TEXT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if 'think' in m['content'] %}user think: "
    "{% endif %}{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)
"""What surrounds a message depends on what it says, and repeats it."""


def chat_tokenizer(template, **changes):
    made = copy.deepcopy(tiny.byte_tokenizer(chat=True, **changes))
    made.chat_template = template
    return made


def chat(*texts, roles=("system", "user", "assistant", "user")):
    if len(texts) == 1:
        roles = ("user",)
    return Prompt(
        kind="chat",
        messages=tuple(Message(role=r, text=t) for r, t in zip(roles, texts, strict=False)),
    )


# --- once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", [False, True])
def test_a_template_is_applied_once_and_writes_the_only_bos(bos):
    tokenizer = tiny.byte_tokenizer(chat=True, bos=bos)
    encoding = Encoder(tokenizer).encode(chat("How many?"))
    plain = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How many?"}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
    )
    assert list(encoding.ids) == plain["input_ids"]
    assert encoding.ids.count(tokenizer.bos_token_id) == 1


def test_without_a_template_the_post_processor_writes_the_only_bos():
    tokenizer = tiny.byte_tokenizer(bos=True)
    encoding = Encoder(tokenizer).encode(Prompt.of("How many?"))
    assert list(encoding.ids) == tokenizer("How many?")["input_ids"]
    assert encoding.ids.count(tokenizer.bos_token_id) == 1
    assert encoding.tokens[0].origin == "special"
    assert encoding.tokens[0].message == -1


def test_a_plain_text_goes_through_the_template_unless_told_otherwise():
    templated = Encoder(CHAT).encode(Prompt.of("How many?"))
    plain = Encoder(CHAT, chat=False).encode(Prompt.of("How many?"))
    assert templated.ids == Encoder(CHAT).encode(chat("How many?")).ids
    assert list(plain.ids) == CHAT("How many?")["input_ids"]


# --- where tokens come from ---------------------------------------------------------------------


def test_every_token_says_where_it_comes_from():
    encoding = Encoder(CHAT).encode(chat("Be brief.", "How many?"))
    origins = [(t.text, t.origin, t.message) for t in encoding.tokens if t.origin != "prompt"]
    assert origins == [
        ("<s>", "special", -1),
        ("<|system|>", "special", -1),
        ("<|end|>", "special", -1),
        ("<|user|>", "special", -1),
        ("<|end|>", "special", -1),
        ("<|assistant|>", "special", -1),
    ]
    for number, text in enumerate(["Be brief.", "How many?"]):
        written = "".join(t.text for t in encoding.tokens if t.message == number)
        assert written == text


def test_words_that_the_template_writes_are_the_templates():
    encoder = Encoder(chat_tokenizer(HEADERS))
    encoding = encoder.encode(chat("How many?"))
    template = "".join(t.text for t in encoding.tokens if t.origin == "template")
    assert template == "user\n\nassistant\n"


MESSAGES = [
    ("user", "user", "user", "user"),
    ("same", "same", "same", "same"),
    ("a", "aa", "aaa", "aaaa"),
    ("system", "assistant", "user", "<"),
    ("Be brief.", " leading and trailing ", "\n\nnew lines\n", "naïve 😀 東京"),
    ("think of it", "user think:", "think", "user"),
]


RENDERED = {
    tiny.CHAT_TEMPLATE: lambda role, text: (f"<|{role}|>", text, "<|end|>"),
    HEADERS: lambda role, text: (f"<|{role}|>{role}\n", text.strip(), "\n<|end|>"),
    LEFT_ONLY: lambda role, text: (f"<|{role}|>{role}\n", text.lstrip("\n"), "\n<|end|>"),
    CHANGES_WITH_TEXT: lambda role, text: (
        f"<|{role}|>" + "user think: " * ("think" in text),
        text,
        "<|end|>",
    ),
}
"""What each template writes before, of and after a message."""


@pytest.mark.parametrize("template", RENDERED, ids=["plain", "headers", "left", "changes"])
@pytest.mark.parametrize("texts", MESSAGES)
def test_spans_point_at_the_right_message_whatever_it_says(template, texts):
    prompt = chat(*texts)
    encoder = Encoder(chat_tokenizer(template))
    encoding = encoder.encode(prompt)
    whole = "" if template is CHANGES_WITH_TEXT else "<s>"
    owner = [(-1, 0)] * len(whole)
    for number, message in enumerate(prompt.messages):
        before, shown, after = RENDERED[template](message.role, message.text)
        first = message.text.index(shown)
        owner += [(-1, 0)] * len(before)
        owner += [(number, first + i) for i in range(len(shown))]
        owner += [(-1, 0)] * len(after)
        whole += before + shown + after
    rest = encoder.tokenizer(whole + "<|assistant|>", add_special_tokens=False)
    assert encoding.ids[: len(rest["input_ids"])] == tuple(rest["input_ids"])
    offsets = encoder.tokenizer(
        whole + "<|assistant|>", add_special_tokens=False, return_offsets_mapping=True
    )["offset_mapping"]
    for token, (start, end) in zip(encoding.tokens, offsets, strict=False):
        own = [owner[i] for i in range(start, min(end, len(owner))) if owner[i][0] >= 0]
        expected = (own[0][0], own[0][1], own[-1][1] + 1) if own else (-1, 0, 0)
        assert (token.message, token.start, token.end) == expected, token


def test_a_token_is_the_text_that_it_points_at():
    texts = ("user", "the user said user", "assistant", "user? user!")
    encoder = Encoder(chat_tokenizer(HEADERS))
    encoding = encoder.encode(chat(*texts))
    for token in encoding.tokens:
        if token.message >= 0:
            assert token.text.strip() == texts[token.message][token.start : token.end].strip()


def test_a_template_that_moves_messages_keeps_their_tokens_theirs():
    encoder = Encoder(chat_tokenizer(SYSTEM_FIRST))
    prompt = chat("Be brief.", "Hello", "Hi", "How many?")
    encoding = encoder.encode(prompt)
    for number, message in enumerate(prompt.messages):
        own = "".join(t.text for t in encoding.tokens if t.message == number)
        assert own.strip() == message.text


def test_a_template_that_changes_a_message_is_refused():
    encoder = Encoder(chat_tokenizer(HEADERS.replace("| trim", "| upper")))
    with pytest.raises(BadRequestError, match=r"changes message 0.*chat=false"):
        _ = encoder.encode(chat("How many?")).tokens


def test_a_template_that_refuses_roles_says_so():
    template = "{{ raise_exception('no system role') }}"
    with pytest.raises(BadRequestError, match=r"refuses these messages.*no system role"):
        Encoder(chat_tokenizer(template)).encode(chat("Be brief.", "How many?"))


def test_special_tokens_in_a_prompts_text_are_known_and_held():
    encoder = Encoder(CHAT)
    prompt = chat("Say <|end|> now")
    (held,) = encoder.special_spans(prompt)
    assert prompt.messages[0].text[held.start : held.end] == "<|end|>"
    inside = [t for t in encoder.encode(prompt).tokens if t.message == 0 and t.origin == "special"]
    assert [(t.start, t.end) for t in inside] == [(held.start, held.end)]


def test_an_unknown_word_is_a_word_and_a_mask_is_special():
    encoder = Encoder(WORDS)
    prompt = Prompt.of("東京 [MASK] red")
    (held,) = encoder.special_spans(prompt)
    assert prompt.text[held.start : held.end] == "[MASK]"


def test_a_token_of_template_and_message_belongs_to_the_message():
    # "\nHow" may be one token: its characters in the message are the message's.
    encoder = Encoder(chat_tokenizer("Q{{ messages[0]['content'] }}!"))
    encoding = encoder.encode(chat("quiet"))
    own = [t for t in encoding.tokens if t.message == 0]
    assert own[0].start == 0
    assert own[-1].end == 5


# --- units --------------------------------------------------------------------------------------


def test_words_get_their_tokens_with_the_space_before_them():
    from pizza.prompt import Unit

    text = "Ana has 3 red apples"
    words, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        words.append(Unit(message=0, start=start, end=at, text=word))
    encoding = Encoder(BYTES).encode(Prompt.of(text))
    assignment = units.shares(encoding.tokens, words)
    for number, word in enumerate(words):
        tokens = [encoding.tokens[i].text for i in assignment.members(number)]
        assert "".join(tokens) == ("" if number == 0 else " ") + word.text
    assert assignment.share.sum(axis=0).tolist() == pytest.approx([1] * len(encoding.ids))


def test_template_and_special_tokens_are_in_no_unit():
    from pizza.prompt import Unit

    text = "user user"
    words = [
        Unit(message=0, start=0, end=4, text="user"),
        Unit(message=0, start=5, end=9, text="user"),
    ]
    encoding = Encoder(chat_tokenizer(HEADERS)).encode(chat(text))
    assignment = units.shares(encoding.tokens, words)
    for position, token in enumerate(encoding.tokens):
        word = token.origin == "prompt" and not token.text.isspace()
        assert assignment.used[position] == word, token
    total = sum(len(encoding.tokens[i].text.strip()) for i in assignment.members(0))
    assert total == 4


# --- texts and back -----------------------------------------------------------------------------

TEXTS = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc ABC 012 .,!?\n\t'\"éß東京😀\u0301\u200d\u202e\ufffd\x00"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)


@pytest.mark.parametrize("tokenizer", [BYTES, CHAT, WORDS], ids=["bytes", "chat", "words"])
@given(text=TEXTS)
@example(text=" ")
@example(text="😀")
@example(text="e\u0301e\u0301")
@example(text="[MASK] <|end|> </s>")
def test_spans_tile_any_text(tokenizer, text):
    spans = Encoder(tokenizer).spans(text)
    if not text:
        assert spans == []
        return
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all(start < end for start, end in spans)


@given(text=TEXTS)
def test_pieces_of_a_text_join_to_the_text(text):
    encoder = Encoder(BYTES)
    ids = BYTES(text)["input_ids"]
    pieces = encoder.pieces(ids)
    assert len(pieces) == len(ids)
    if all("\\x" not in piece for piece in pieces):
        assert "".join(pieces) == encoder.decode(ids)
    raw = b"".join(_bytes(piece) for piece in pieces)
    if "\\x" not in text and "\ufffd" not in text:
        assert raw.decode() == text


def _bytes(piece):
    parts = re.split(r"((?:\\x[0-9a-f]{2})+)", piece)
    return b"".join(
        bytes.fromhex(part.replace("\\x", "")) if part.startswith("\\x") else part.encode()
        for part in parts
    )


@given(text=st.text(alphabet="anred hs3.?", min_size=1, max_size=30))
def test_pieces_of_word_pieces_join_to_what_they_decode_to(text):
    encoder = Encoder(WORDS)
    ids = WORDS(text, add_special_tokens=False)["input_ids"]
    assert "".join(encoder.pieces(ids)) == encoder.decode(ids)


@given(ids=st.lists(st.integers(0, 383), max_size=12))
def test_any_ids_have_pieces_and_none_of_them_is_empty_or_broken(ids):
    pieces = Encoder(BYTES).pieces(ids)
    assert len(pieces) == len(ids)
    assert all(piece and "\ufffd" not in piece for piece in pieces)


def test_half_a_character_reads_as_its_bytes():
    encoder = Encoder(BYTES)
    ids = BYTES("Ω")["input_ids"]
    assert len(ids) == 2
    assert encoder.pieces(ids) == ("\\xce", "\\xa9")
    assert encoder.pieces(ids[:1]) == ("\\xce",)
    red = BYTES(" red")["input_ids"]
    assert encoder.pieces([ids[0], *red]) == ("\\xce", " red")


def test_ids_beyond_the_vocabulary_have_names():
    assert Encoder(BYTES).piece(1000) == "<1000>"


def test_the_vocabulary_says_which_tokens_are_text():
    texts = Encoder(BYTES).vocabulary(400)
    assert len(texts) == 400
    assert texts[BYTES(" red")["input_ids"][0]] == " red"
    assert texts[BYTES("Ω")["input_ids"][0]] is None
    assert texts[399] is None


# --- what is refused ----------------------------------------------------------------------------


def test_a_target_that_the_vocabulary_cannot_say_is_refused():
    with pytest.raises(BadRequestError, match=r"cannot say the target '東京'.*Target\.tokens"):
        Encoder(WORDS).target("東京")


def test_an_empty_target_is_refused():
    with pytest.raises(BadRequestError, match="has no tokens"):
        Encoder(BYTES).target("")


def test_a_prompt_without_tokens_is_refused():
    # A prompt of nothing cannot be made; a coalition without any unit can.
    nothing = Prompt(messages=(Message(text=""),))
    with pytest.raises(BadRequestError, match="no tokens"):
        Encoder(BYTES).encode(nothing)


def test_a_chat_without_a_template_is_refused():
    with pytest.raises(BadRequestError, match="has no chat template"):
        Encoder(BYTES).encode(chat("Be brief.", "How many?"))
    with pytest.raises(ConfigError, match="has no chat template"):
        Encoder(BYTES, chat=True)


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ConfigError, match=r"Slow.*fast tokenizer"):
        Encoder(Slow())
