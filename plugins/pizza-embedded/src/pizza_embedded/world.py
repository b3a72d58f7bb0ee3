# SPDX-License-Identifier: Apache-2.0
"""Generator of documents and questions whose supporting words are known.

A question is answered from *facts*; every word of a document carries the slot it says (the number
of fact 1, the name in the question, ...), so for any set of lost words the right answer can be
computed. That is what makes a ground truth for attribution: ``Example.value_spans`` are the words
the answer is read off, ``Example.key_spans`` those that say which fact is meant and what is asked.

Only the standard library is used; everything follows from the ``random.Random`` passed in.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pizza_embedded import vocabulary

UNKNOWN = "unknown"
"""The answer when the text does not say."""

TASKS = ("inventory", "capital", "clock", "sentiment")
STYLES = ("chat", "plain")

_HELD_OUT_SHARE = 8
_PUNCTUATION = ".,;:?!"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text.

    Attributes:
        text: The word without surrounding punctuation.
        slot: What it says, for example ``"1.number"`` (fact 1) or ``"q.name"`` (question); empty
            for words that carry nothing the answer depends on.
        before: What separates it from the word before (ignored at the start of a text).
        after: Punctuation or suffix glued to it.
        fixed: True for words of a template (``Q:``, ``A:``), which are never perturbed.
    """

    text: str
    slot: str = ""
    before: str = " "
    after: str = ""
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a document.

    Attributes:
        style: The kind of question, for example ``"how-many"``.
        words: Its words, in order.
        solve: The right answer given the set of slots that were lost.
        value_slots: Slots of the words that are the answer or that it is computed from.
        key_slots: Slots of the words that select the fact and what is asked about it.
    """

    style: str
    words: tuple[Word, ...]
    solve: Callable[[frozenset[str]], str]
    value_slots: frozenset[str]
    key_slots: frozenset[str]


@dataclass(frozen=True, slots=True)
class Problem:
    """A document with questions about it."""

    task: str
    document: tuple[Word, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A prompt with its answer and the words the answer depends on.

    Attributes:
        text: What a user types; in ``plain`` style it ends with the template's ``A:``.
        style: ``"chat"`` (send it as a user message) or ``"plain"`` (complete it).
        task: One of :data:`TASKS`.
        question_style: The kind of question, for example ``"how-many"``.
        answer: The right answer, without surrounding white space.
        value_spans: Half-open code-point spans of the words the answer is read off.
        key_spans: Spans of the words that select the fact and what is asked about it.
        scaffold_spans: Spans of the template's own words, not to be perturbed.
    """

    text: str
    style: str
    task: str
    question_style: str
    answer: str
    value_spans: tuple[Span, ...]
    key_spans: tuple[Span, ...]
    scaffold_spans: tuple[Span, ...] = ()

    def messages(self) -> list[tuple[str, str]]:
        """Return the prompt as ``(role, text)`` chat messages."""
        return [("user", self.text)]


def parse(template: str, prefix: str, values: Mapping[str, str]) -> tuple[Word, ...]:
    """Turn a template into words.

    Args:
        template: Words separated by spaces. ``slot=text`` gives a word a slot, ``{name}`` is filled
            from ``values``; a word whose slot is named in ``values`` with an empty text is left out.
        prefix: Put before slot names, for example ``"1."``.
        values: Texts by name.

    Returns:
        The words.
    """
    words = []
    for token in template.split(" "):
        slot, separator, text = token.partition("=")
        if not separator:
            slot, text = "", token
        if slot and values.get(slot) == "":
            continue
        body = text.rstrip(_PUNCTUATION)
        after = text[len(body) :]
        if body.endswith("}'s"):
            body, after = body[:-2], "'s" + after
        words.append(Word(body.format(**values), prefix + slot if slot else "", after=after))
    return tuple(words)


def render(words: Sequence[Word]) -> tuple[str, list[Span]]:
    """Return the text of some words and the span of each (without its ``after``)."""
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0
    for position, word in enumerate(words):
        before = word.before if position else ""
        start = length + len(before)
        spans.append((start, start + len(word.text)))
        pieces.append(before + word.text + word.after)
        length += len(pieces[-1])
    return "".join(pieces), spans


# --- facts: inventory and capitals ------------------------------------------------------------


def fact_question(
    facts: Sequence[Mapping[str, str]], style: str, template: str, given: Sequence[str],
    target: str, asked: Mapping[str, str],
) -> Question:  # fmt: skip
    """Build a question about one attribute of the fact that matches some others.

    The answer survives the loss of a key as long as the rest still selects one fact: an asker who
    says "How many pears does _ have?" where only one person has pears is understood.

    Args:
        facts: Attribute texts by name, one mapping per fact.
        style: The kind of question.
        template: Its words, see :func:`parse`; the slot ``type`` marks what is asked.
        given: Names of the attributes that the question states.
        target: Name of the attribute that it asks for.
        asked: The texts that the question states.

    Returns:
        The question.
    """

    def candidates(lost: frozenset[str]) -> list[int]:
        known = [name for name in given if "q." + name not in lost]
        scores = []
        for index, fact in enumerate(facts):
            visible = [name for name in known if f"{index}.{name}" not in lost]
            conflict = any(fact[name] != asked[name] for name in visible)
            scores.append(-1 if conflict else len(visible))
        best = max(scores)
        return [index for index, score in enumerate(scores) if score == best and best > 0]

    def solve(lost: frozenset[str]) -> str:
        found = candidates(lost)
        if "q.type" in lost or len(found) != 1 or f"{found[0]}.{target}" in lost:
            return UNKNOWN
        return facts[found[0]][target]

    found = candidates(frozenset())
    value_slots = {f"{index}.{target}" for index in found}
    key_slots = {"q.type"} | {f"{index}.{name}" for index in (*found, "q") for name in given}
    words = parse(template, "q.", asked)
    return Question(style, words, solve, frozenset(value_slots), frozenset(key_slots))


_INVENTORY_FACTS = (
    "name={name} has number={number} color={color} item={item}",
    "name={name} has number={number} color={color} item={item}",
    "name={name} owns number={number} color={color} item={item}",
    "name={name} bought number={number} color={color} item={item}",
    "name={name} carries number={number} color={color} item={item}",
    "name={name} got number={number} color={color} item={item}",
    "name={name} keeps number={number} color={color} item={item} at home",
    "in name={name}'s bag there are number={number} color={color} item={item}",
    "the number={number} color={color} item={item} belong to name={name}",
)
# style, attributes stated, attribute asked for, template
_INVENTORY_QUESTIONS = (
    ("how-many", "name item", "number",
     "type=How type=many item={item} does name={name} have?"),
    ("how-many", "name item", "number",
     "type=How type=many item={item} does name={name} have?"),
    ("how-many", "name item", "number",
     "type=How type=many item={item} does name={name} own?"),
    ("how-many", "name item color", "number",
     "type=How type=many color={color} item={item} does name={name} have?"),
    ("how-many", "item", "number", "type=How type=many item={item} are there?"),
    ("how-many", "name", "number", "type=How type=many things does name={name} have?"),
    ("who", "item", "name", "type=Who has the item={item}?"),
    ("who", "item", "name", "type=Who owns the item={item}?"),
    ("who", "number item", "name", "type=Who has number={number} item={item}?"),
    ("who", "color item", "name", "type=Who has the color={color} item={item}?"),
    ("what-color", "name item", "color", "What type=color are name={name}'s item={item}?"),
    ("what-color", "name item", "color", "Which type=color are name={name}'s item={item}?"),
    ("what-color", "item", "color", "What type=color are the item={item}?"),
    ("what", "name", "item", "type=What type=does name={name} have?"),
    ("what", "name", "item", "type=What things type=does name={name} have?"),
    ("what", "name number", "item", "type=What type=does name={name} have number={number} of?"),
)  # fmt: skip
_CAPITAL_FACTS = (
    "The capital of country={country} is city={city}",
    "The capital of country={country} is city={city}",
    "In this story the capital of country={country} is city={city}",
    "The capital city of country={country} is called city={city}",
    "city={city} is the capital of country={country}",
)
_CAPITAL_QUESTIONS = (
    ("capital", "country", "city", "type=What is the type=capital of country={country}?"),
    ("capital", "country", "city", "type=What is the type=capital of country={country}?"),
    ("capital", "country", "city", "type=Which city is the type=capital of country={country}?"),
    ("capital", "country", "city", "type=Name the type=capital of country={country}."),
    ("country", "city", "country", "city={city} is the capital of which type=country?"),
    ("country", "city", "country", "Of which type=country is city={city} the capital?"),
)


def _word_source(
    rng: random.Random, known: Sequence[str], unseen: Sequence[str], names: str, suffix: str = ""
) -> Callable[[], str]:
    """Return a function that draws distinct words: known, made up, or never seen in training."""
    used: set[str] = set()

    def draw() -> str:
        while True:
            if names == "unseen":
                word = rng.choice(unseen)
            elif names == "known" or rng.random() < 0.5:
                word = rng.choice(known)
            else:
                word = vocabulary.made_up(rng)
                word = word + suffix if suffix else word.capitalize()
            if word not in used:
                used.add(word)
                return word

    return draw


def _sentences(
    rng: random.Random, facts: Sequence[Mapping[str, str]], templates: Sequence[str], order: Sequence[int]
) -> list[Word]:  # fmt: skip
    """Write facts as sentences, sometimes two joined by "and"; ``order`` may repeat a fact."""
    words: list[Word] = []
    shared = rng.choice(templates) if rng.random() < 0.7 else None
    open_sentence = False
    for position, index in enumerate(order):
        template = shared or rng.choice(templates)
        fact = list(parse(template, f"{index}.", facts[index]))
        if not open_sentence:
            fact[0] = _replace(fact[0], text=fact[0].text[:1].upper() + fact[0].text[1:])
        elif not fact[0].slot:
            fact[0] = _replace(fact[0], text=fact[0].text[:1].lower() + fact[0].text[1:])
        last = position == len(order) - 1
        open_sentence = not last and not open_sentence and rng.random() < 0.5
        fact[-1] = _replace(fact[-1], after="" if open_sentence else ".")
        if open_sentence and rng.random() < 0.3:
            fact[-1] = _replace(fact[-1], after=rng.choice([",", ";"]))
        words += fact
        if open_sentence:
            words.append(Word("and"))
    return words


def _replace(word: Word, *, text: str | None = None, after: str | None = None) -> Word:
    return Word(
        word.text if text is None else text, word.slot, word.before,
        word.after if after is None else after, word.fixed,
    )  # fmt: skip


def _number(rng: random.Random) -> str:
    return str(rng.randint(2, 20) if rng.random() < 0.6 else rng.randint(2, 99))


def _inventory_facts(
    rng: random.Random, n_facts: int, names: str, collide: bool
) -> list[dict[str, str]]:
    person = _word_source(rng, vocabulary.NAMES, vocabulary.UNSEEN_NAMES, names)
    item = _word_source(rng, vocabulary.ITEMS, vocabulary.UNSEEN_ITEMS, names, suffix="s")
    numbers = rng.sample(range(2, 100), n_facts)
    colors = rng.sample(vocabulary.COLORS, n_facts)
    coloured = rng.random() < 0.7
    facts = []
    for index in range(n_facts):
        number = _number(rng)
        taken = {fact["number"] for fact in facts}
        facts.append({
            "name": person(), "item": item(),
            "number": str(numbers[index]) if number in taken else number,
            "color": colors[index] if coloured else "",
        })  # fmt: skip
    if collide and n_facts > 1:
        # Two facts share a person or an item: then one key alone no longer selects the fact.
        first, second = rng.sample(range(n_facts), 2)
        shared = rng.choice(["name", "item"])
        facts[second][shared] = facts[first][shared]
    return facts


def _capital_facts(
    rng: random.Random, n_facts: int, names: str, collide: bool
) -> list[dict[str, str]]:
    del collide
    country = _word_source(rng, vocabulary.COUNTRIES, vocabulary.UNSEEN_COUNTRIES, names)
    city = _word_source(rng, vocabulary.CITIES, vocabulary.UNSEEN_CITIES, names)
    return [{"country": country(), "city": city()} for _ in range(n_facts)]


def _fact_questions(
    rng: random.Random, facts: Sequence[Mapping[str, str]], table: Sequence[tuple[str, str, str, str]],
    n_questions: int,
) -> list[Question]:  # fmt: skip
    """Draw answerable questions, each about a fact drawn anew."""
    questions: list[Question] = []
    styles = sorted({row[0] for row in table})
    for _ in range(40):
        style = rng.choice(styles)
        _, given, target, template = rng.choice([row for row in table if row[0] == style])
        fact = rng.choice(facts)
        attributes = given.split(" ")
        if not fact[target] or not all(fact[name] for name in attributes):
            continue
        question = fact_question(facts, style, template, attributes, target, fact)
        repeated = any(question.words == other.words for other in questions)
        if question.solve(frozenset()) == fact[target] and not repeated:
            questions.append(question)
            if len(questions) == n_questions:
                break
    return questions


# --- clock ------------------------------------------------------------------------------------

_CLOCK_SUMS = (
    ("It is hour={hour} o'clock now. The {event} lasts duration={duration} hours.",
     "At what type=hour does it type=end?"),
    ("The {event} starts at hour={hour} o'clock and lasts duration={duration} hours.",
     "type=When does it type=end?"),
    ("The {event} starts at hour={hour} o'clock and takes duration={duration} hours.",
     "At what type=hour is it type=over?"),
    ("The train leaves at hour={hour} o'clock and the trip takes duration={duration} hours.",
     "type=When does it type=arrive?"),
    ("The clock shows hour={hour} o'clock. The {event} will be duration={duration} hours long.",
     "type=When does it type=end?"),
)  # fmt: skip
_CLOCK_MINUTES = (
    ("The clock shows value={hour}:{minute} {half}.", "type=How many type=minutes 'til {next}?"),
    ("The clock shows value={hour}:{minute} {half}.", "type=How many type=minutes until {next}?"),
    ("It is value={hour}:{minute} {half} now.", "type=How many type=minutes are left until {next}?"),
)
_EVENTS = "film meeting party lesson concert flight game show class play walk lecture".split()


def _clock(rng: random.Random) -> tuple[list[Word], Question]:
    hour = rng.randint(1, 12)
    if rng.random() < 0.3:
        minute = rng.randint(1, 59)
        values = {
            "hour": str(hour), "minute": f"{minute:02d}", "half": rng.choice(["AM", "PM"]),
            "next": str(hour % 12 + 1),
        }  # fmt: skip
        template, asked = rng.choice(_CLOCK_MINUTES)
        answer, slots, style = str(60 - minute), {"0.value"}, "minutes"
    else:
        duration = rng.randint(2, 9)
        values = {"hour": str(hour), "duration": str(duration), "event": rng.choice(_EVENTS)}
        template, asked = rng.choice(_CLOCK_SUMS)
        answer, slots, style = str((hour + duration - 1) % 12 + 1), {"0.hour", "0.duration"}, "hour"

    def solve(lost: frozenset[str]) -> str:
        return UNKNOWN if lost & (slots | {"q.type"}) else answer

    question = Question(
        style, parse(asked, "q.", values), solve, frozenset(slots), frozenset({"q.type"})
    )
    return list(parse(template, "0.", values)), question


# --- sentiment --------------------------------------------------------------------------------

_REVIEWS = (
    "The {subject} was negation=not polarity={polarity}.",
    "I think the {subject} was negation=not polarity={polarity}.",
    "My friend said the {subject} is negation=not polarity={polarity}.",
    "We found that the {subject} was negation=not polarity={polarity} today.",
    "Honestly, this {subject} is negation=not polarity={polarity}!",
)
_MOODS = (
    "Is this review type=positive or type=negative?",
    "Was the review type=positive or type=negative?",
    "Is the opinion type=positive or type=negative?",
    "What is the type=sentiment of this type=review?",
)


def _sentiment(rng: random.Random) -> tuple[list[Word], Question]:
    positive = rng.random() < 0.5
    negated = rng.random() < 0.3
    words = vocabulary.POSITIVE if positive else vocabulary.NEGATIVE
    values = {"subject": rng.choice(vocabulary.SUBJECTS), "polarity": rng.choice(words)}
    if not negated:
        values["negation"] = ""

    def solve(lost: frozenset[str]) -> str:
        if lost & {"0.polarity", "q.type"}:
            return UNKNOWN
        flipped = negated and "0.negation" not in lost
        return "positive" if positive != flipped else "negative"

    slots = frozenset({"0.polarity", "0.negation"} if negated else {"0.polarity"})
    question = Question(
        "polarity", parse(rng.choice(_MOODS), "q.", values), solve, slots, frozenset({"q.type"})
    )
    return list(parse(rng.choice(_REVIEWS), "0.", values)), question


# --- problems and examples --------------------------------------------------------------------


def _fillers(rng: random.Random, count: int) -> list[Word]:
    return [
        word for _ in range(count) for word in parse(rng.choice(vocabulary.FILLERS), "", {})
    ]


def problem(
    rng: random.Random,
    task: str,
    *,
    names: str = "mixed",
    n_facts: int | None = None,
    n_questions: int = 1,
    n_fillers: int = 0,
    redundant: bool = False,
) -> Problem:
    """Draw a document and questions about it.

    Args:
        rng: Source of all choices.
        task: One of :data:`TASKS`.
        names: ``"mixed"`` (half from the known lists, half made up), ``"known"``, or ``"unseen"``
            (lists that training never draws from).
        n_facts: Facts in an inventory or capitals document; None draws 2 to 4.
        n_questions: Questions, for inventory and capitals; other tasks have one.
        n_fillers: Irrelevant sentences around the facts.
        redundant: State everything the answer is read off twice.

    Returns:
        The problem.
    """
    if task in ("inventory", "capital"):
        n_facts = n_facts or rng.choice([2, 2, 2, 3, 3, 4])
        make, templates, table = (
            (_inventory_facts, _INVENTORY_FACTS, _INVENTORY_QUESTIONS)
            if task == "inventory"
            else (_capital_facts, _CAPITAL_FACTS, _CAPITAL_QUESTIONS)
        )
        facts = make(rng, n_facts, names, rng.random() < 0.2)
        order = [index for _ in range(1 + redundant) for index in range(n_facts)]
        document = _sentences(rng, facts, templates, order)
        questions = _fact_questions(rng, facts, table, n_questions)
    elif task in ("clock", "sentiment"):
        document, question = (_clock if task == "clock" else _sentiment)(rng)
        document, questions = document * (1 + redundant), [question]
    else:
        raise ValueError(f"unknown task {task!r}; one of {', '.join(TASKS)}")
    before = rng.randint(0, n_fillers)
    document = _fillers(rng, before) + document + _fillers(rng, n_fillers - before)
    return Problem(task, tuple(document), tuple(questions))


def is_held_out(drawn: Problem) -> bool:
    """Say whether a document is reserved for evaluation (one in eight, by a hash of its text)."""
    text, _ = render(drawn.document)
    return zlib.crc32(text.encode()) % _HELD_OUT_SHARE == 0


def scaffolded(document: Sequence[Word], question: Sequence[Word]) -> list[Word]:
    """Return document and question in the completion form: ``... Q: ... A:``."""
    return [
        *document,
        Word("Q:", before="\n", fixed=True),
        *question,
        Word("A:", before="\n", fixed=True),
    ]


def example(drawn: Problem, question: Question, style: str) -> Example:
    """Write a problem as a prompt in ``"chat"`` or ``"plain"`` style."""
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; one of {', '.join(STYLES)}")
    if style == "plain":
        words = scaffolded(drawn.document, question.words)
    else:
        words = [*drawn.document, *question.words]
    text, spans = render(words)

    def select(slots: frozenset[str]) -> tuple[Span, ...]:
        return tuple(s for s, word in zip(spans, words, strict=True) if word.slot in slots)

    return Example(
        text=text,
        style=style,
        task=drawn.task,
        question_style=question.style,
        answer=question.solve(frozenset()),
        value_spans=select(question.value_slots),
        key_spans=select(question.key_slots),
        scaffold_spans=tuple(s for s, word in zip(spans, words, strict=True) if word.fixed),
    )


def heldout(
    n: int,
    *,
    seed: int = 0,
    tasks: Sequence[str] = TASKS,
    styles: Sequence[str] = ("chat",),
    names: str = "mixed",
    redundant: bool = False,
) -> list[Example]:
    """Return examples whose documents were never used in training.

    Args:
        n: How many; tasks and styles take turns.
        seed: Same seed, same examples.
        tasks: Which of :data:`TASKS`.
        styles: ``"chat"`` and / or ``"plain"``.
        names: ``"mixed"``, ``"known"`` or ``"unseen"``, see :func:`problem`.
        redundant: State every fact twice: then no single word carries the answer alone.

    Returns:
        ``n`` examples, all answerable.
    """
    rng = random.Random(f"heldout/{seed}/{names}/{redundant}")
    found: list[Example] = []
    while len(found) < n:
        task = tasks[len(found) % len(tasks)]
        style = styles[len(found) // len(tasks) % len(styles)]
        drawn = problem(rng, task, names=names, redundant=redundant)
        if is_held_out(drawn) and drawn.questions:
            found.append(example(drawn, drawn.questions[0], style))
    return found
