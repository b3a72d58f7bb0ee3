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
from collections.abc import Sequence
from dataclasses import dataclass

from pizza_embedded import vocabulary
from pizza_embedded.facts import ask_facts, draw_facts, fact_question, list_facts, state_facts
from pizza_embedded.wording import UNKNOWN, Problem, Question, Span, Word, parse, render

__all__ = [
    "STYLES",
    "TASKS",
    "UNKNOWN",
    "Example",
    "Problem",
    "Question",
    "Span",
    "Word",
    "ask_facts",
    "draw_facts",
    "example",
    "fact_question",
    "heldout",
    "is_held_out",
    "list_facts",
    "parse",
    "problem",
    "render",
    "scaffolded",
    "state_facts",
]

TASKS = ("inventory", "capital", "clock", "sentiment")
STYLES = ("chat", "plain")

_HELD_OUT_SHARE = 8


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
    ("It is value={hour}:{minute} {half} now.",
     "type=How many type=minutes are left until {next}?"),
)  # fmt: skip
_EVENTS = (
    "film", "meeting", "party", "lesson", "concert", "flight", "game", "show", "class", "play",
    "walk", "lecture",
)  # fmt: skip


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
    return [word for _ in range(count) for word in parse(rng.choice(vocabulary.FILLERS), "", {})]


def problem(
    rng: random.Random,
    task: str,
    *,
    names: str = "mixed",
    n_facts: int | None = None,
    n_questions: int = 1,
    n_fillers: int = 0,
    redundant: bool = False,
    across: bool = False,
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
        across: Let questions start from words that stand behind what is asked for, which is
            harder to so small a reader ("Ana has 3 pears. Who has the pears?").

    Returns:
        The problem.
    """
    if task in ("inventory", "capital"):
        n_facts = n_facts or rng.choice([2, 2, 2, 2, 3, 3, 4])
        direction = None if across else int(rng.random() < 0.35)
        share = rng.choice(["item", "name"]) if across else ("item", "name")[int(bool(direction))]
        share = share if rng.random() < 0.2 else ""
        facts = draw_facts(rng, task, n_facts, names=names, share=share)
        order = [index for _ in range(1 + redundant) for index in range(n_facts)]
        document = state_facts(rng, task, facts, order, direction)
        questions = ask_facts(rng, task, facts, n_questions, direction)
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


RELIABLE = (
    "how-many", "what", "who", "what-color", "capital", "hour", "minutes", "polarity",
)  # fmt: skip
"""The kinds of questions that the shipped model answers reliably; see its model card."""
WEAK = ("country",)
"""The kinds that it was trained on as well and often answers wrongly."""


def heldout(
    n: int,
    *,
    seed: int = 0,
    tasks: Sequence[str] = TASKS,
    styles: Sequence[str] = ("chat",),
    names: str = "mixed",
    redundant: bool = False,
    across: bool = False,
    kinds: Sequence[str] = RELIABLE,
) -> list[Example]:
    """Return examples whose documents were never used in training.

    Args:
        n: How many; tasks and styles take turns.
        seed: Same seed, same examples.
        tasks: Which of :data:`TASKS`.
        styles: ``"chat"`` and / or ``"plain"``.
        names: ``"mixed"``, ``"known"`` or ``"unseen"``, see :func:`problem`.
        redundant: State every fact twice: then no single word carries the answer alone.
        across: Ask against the direction of the sentences, see :func:`problem`.
        kinds: Which kinds of questions: :data:`RELIABLE`, :data:`WEAK`, or both.

    Returns:
        ``n`` examples, all answerable.
    """
    rng = random.Random(f"heldout/{seed}/{names}/{redundant}")  # noqa: S311 - not a secret
    found: list[Example] = []
    while len(found) < n:
        task = tasks[len(found) % len(tasks)]
        style = styles[len(found) // len(tasks) % len(styles)]
        drawn = problem(rng, task, names=names, redundant=redundant, across=across)
        if not drawn.questions or drawn.questions[0].style not in kinds:
            continue
        if is_held_out(drawn):
            found.append(example(drawn, drawn.questions[0], style))
    return found
