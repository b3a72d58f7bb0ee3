# SPDX-License-Identifier: Apache-2.0
"""Training rows: prompts with answers, many of them damaged on purpose, and copying drills."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pizza_embedded import vocabulary, world
from pizza_embedded.tokenizer import Tokenizer
from pizza_embedded.world import UNKNOWN, Problem, Word

CONTEXT_WEIGHT = 0.1
TASK_SHARES = ("inventory",) * 10 + ("capital",) * 5 + ("clock",) * 3 + ("sentiment",) * 2
MASKS = ("_", "_", "...", "...", "", "[MASK]")
SYSTEM = (
    "You are a helpful assistant.",
    "Answer with one word.",
    "Answer the question about the text.",
    "Be brief.",
)
SMALL_TALK = (
    "Hello!", "Hi there.", "What is the meaning of life?", "Tell me a joke.", "Thank you.",
    "How are you today?", "Write a poem about the sea.", "What is your name?", "Please help me.",
    "Explain how rain forms.", "Who are you?", "What should I do?", "test", "?", "...", "_",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of what a row may be.

    Attributes:
        drills: Rows that only copy (of all rows).
        brief: Rows of many questions that are cut down to a key (of all rows).
        recaps: Rows that state facts and then state them again (of all rows).
        damaged: Question rows in which words are lost (of the question rows).
        long: Question rows of several hundred tokens.
        easy: Share of the question rows that are as simple as can be: two facts, known names,
            nothing beside them.
        across: Share of the documents that are also asked against their direction.
    """

    drills: float
    brief: float = 0.0
    recaps: float = 0.0
    damaged: float = 0.3
    long: float = 0.02
    easy: float = 0.0
    across: float = 0.04


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids and the loss weight of each (0 for template tokens that are given)."""

    ids: list[int]
    weights: list[float]


class RowMaker:
    """Draws rows from one seeded source."""

    def __init__(self, tokenizer: Tokenizer, seed: str) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(f"train/{seed}")

    def row(self, mix: Mix) -> Row:
        """Draw a row."""
        rng = self._rng
        if rng.random() < mix.drills:
            return self._chat([self._drill()], weight=0.5)
        if rng.random() < mix.recaps:
            return self._recap("known" if rng.random() < mix.easy else "mixed")
        if rng.random() < mix.brief:
            return self._brief("known" if rng.random() < mix.easy else "mixed")
        if rng.random() < 0.02:
            return self._chat([(self._junk(), UNKNOWN)])
        task = rng.choice(TASK_SHARES)
        plain = rng.random() < 0.2
        # Clock and sentiment documents have one question each, so a row holds several of them.
        turns = self._questions(mix, task, plain=plain)
        for _ in range(0 if task in ("inventory", "capital") else rng.randint(1, 3)):
            turns += self._questions(mix, task, plain=plain)
        return self._plain(turns) if plain else self._chat(turns)

    # --- what is asked ---

    def _questions(self, mix: Mix, task: str, *, plain: bool) -> list[tuple[str, str]]:
        rng = self._rng
        easy = rng.random() < mix.easy
        if easy:
            n_fillers = 0
        elif rng.random() < mix.long:
            n_fillers = rng.randint(8, 36)
        else:
            n_fillers = rng.choice([0, 0, 0, 0, 1, 2])
        while True:
            drawn = world.problem(
                rng, task, n_facts=2 if easy else None, names="known" if easy else "mixed",
                n_questions=rng.choice([2, 3, 4, 5]), n_fillers=n_fillers,
                redundant=not easy and rng.random() < 0.06,
                across=rng.random() < mix.across,
            )  # fmt: skip
            if drawn.questions and not world.is_held_out(drawn):
                break
        if not easy and rng.random() < 0.05:
            drawn = self._unanswerable(drawn)
        document = list(drawn.document)
        asked = [list(question.words) for question in drawn.questions]
        if not easy and rng.random() < mix.damaged:
            document, *asked = self._damage([document, *asked])
        answers = []
        for question, words in zip(drawn.questions, asked, strict=True):
            kept = {word.slot for word in (*document, *words)}
            slots = {word.slot for word in (*drawn.document, *question.words)}
            answers.append(question.solve(frozenset(slots - kept)))
        return self._turns(document, asked, answers, plain)

    def _unanswerable(self, drawn: Problem) -> Problem:
        """Ask a document about facts of another one of its kind."""
        other = world.problem(self._rng, drawn.task)
        if drawn.task not in ("inventory", "capital") or not other.questions:
            return drawn
        known = {word.text.lower() for word in drawn.document if word.slot}
        if any(word.text.lower() in known for word in other.questions[0].words):
            return drawn
        question = replace(other.questions[0], solve=lambda lost: UNKNOWN)
        return replace(drawn, questions=(question, *drawn.questions[:1]))

    def _turns(
        self, document: list[Word], asked: list[list[Word]], answers: list[str], plain: bool
    ) -> list[tuple[str, str]]:
        if plain:
            turns = [(world.render(world.scaffolded(document, asked[0]))[0], answers[0])]
            for words, answer in zip(asked[1:], answers[1:], strict=True):
                turns.append((world.render(world.scaffolded([], words))[0], answer))
            return turns
        rng = self._rng
        first = list(asked[0])
        if first and document and rng.random() < 0.15:
            first[0] = replace(first[0], before=rng.choice(["\n", "\n\n", "  "]))
        elif first and document and rng.random() < 0.08:
            first.insert(0, Word("Question:", before=rng.choice([" ", "\n"]), fixed=True))
        turns = [(world.render([*document, *first])[0], answers[0])]
        for words, answer in zip(asked[1:], answers[1:], strict=True):
            turns.append((world.render(words)[0], answer))
        return turns

    def _damage(self, parts: list[list[Word]]) -> list[list[Word]]:
        """Lose some words: put a mask in their place, or take them out."""
        rng = self._rng
        places = [(part, index) for part, words in enumerate(parts) for index in range(len(words))]
        draw = rng.random()
        if draw < 0.6:
            # One word, as leave-one-out loses it: half of the time one that says nothing, so that
            # the answer does not hang on a verb.
            told = [(p, i) for p, i in places if parts[p][i].slot]
            rest = [(p, i) for p, i in places if not parts[p][i].slot]
            lost = {rng.choice(told if told and (not rest or rng.random() < 0.5) else rest)}
        elif draw < 0.72:
            lost = set(rng.sample(places, min(len(places), rng.randint(2, 3))))
        else:
            share = rng.choice([0.25, 0.5, 0.5, 0.75, 0.95, rng.random()])
            lost = {place for place in places if rng.random() < share}
        mask = rng.choice(MASKS)
        delete = rng.random() < 0.5
        keep_punctuation = rng.random() < 0.4
        keep_margin = rng.random() < 0.5
        result = []
        for part, words in enumerate(parts):
            kept: list[Word] = []
            for index, word in enumerate(words):
                after = word.after if keep_punctuation else ""
                if (part, index) not in lost:
                    kept.append(word)
                elif not delete:
                    kept.append(Word(mask, "", word.before, after))
                elif keep_margin and not kept and part == 0:
                    # The space behind a deleted first word stays.
                    kept.append(Word("", before=""))
                elif kept and after:
                    kept[-1] = replace(kept[-1], after=kept[-1].after + after)
            result.append(kept)
        return result

    def _word(self) -> str:
        rng = self._rng
        draw = rng.random()
        if draw < 0.3:
            return rng.choice(
                [*vocabulary.NAMES, *vocabulary.ITEMS, *vocabulary.COUNTRIES, *vocabulary.CITIES]
            )
        if draw < 0.4:
            return str(rng.randint(2, 99) if rng.random() < 0.8 else rng.randint(100, 9999))
        word = vocabulary.made_up(rng)
        return word.capitalize() if rng.random() < 0.5 else word

    def _junk(self) -> str:
        rng = self._rng
        pieces = [rng.choice(vocabulary.FILLERS) for _ in range(rng.randint(0, 3))]
        if rng.random() < 0.4:
            pieces.append(" ".join(self._word() for _ in range(rng.randint(1, 12))))
        if not pieces or rng.random() < 0.6:
            pieces.append(rng.choice(SMALL_TALK))
        rng.shuffle(pieces)
        return " ".join(pieces) if rng.random() < 0.97 else ""

    def _drill(self) -> tuple[str, str]:
        rng = self._rng
        words = list({self._word(): None for _ in range(rng.randint(2, 9))})
        if rng.random() < 0.5 or len(words) < 2:
            return "Repeat: " + " ".join(words), " ".join(words)
        index = rng.randrange(len(words) - 1)
        question = f"Which word comes after {words[index]}?"
        return "Words: " + " ".join(words) + ". " + question, words[index + 1]

    def _recap(self, names: str) -> Row:
        """State facts twice or more, in another order and other words.

        All that follows from the first word about a fact is learned: three look-ups a sentence,
        where a question is one look-up in as many words.
        """
        rng = self._rng
        task = rng.choice(["inventory", "inventory", "inventory", "capital"])
        facts = world.draw_facts(rng, task, rng.choice([2, 3, 4, 5]), names=names)
        order = list(range(len(facts)))
        rng.shuffle(order)
        words = world.state_facts(rng, task, facts, order)
        n_given = len(words)
        for _ in range(rng.choice([1, 2])):
            rng.shuffle(order)
            listed = rng.random() < 0.6
            for index in order:
                if listed:
                    words += world.list_facts(rng, facts, [index])
                else:
                    words += world.state_facts(rng, task, facts, [index])
        text, spans = world.render(words)
        learned = []
        before = ""
        for position, word in enumerate(words):
            fact = word.slot.partition(".")[0]
            if position >= n_given and word.slot and fact == before:
                learned.append(spans[position])
            before = fact or before
            if word.after.endswith("."):
                before = ""
        ids, tokens = self._tokenizer.encode_with_offsets(text)
        weights = [
            1.0 if any(a < end and start < b for a, b in learned) else CONTEXT_WEIGHT
            for start, end in tokens
        ]
        return Row(ids, weights)

    def _brief(self, names: str) -> Row:
        """Ask many questions of a few words each: the same look-ups in half the tokens."""
        rng = self._rng
        task = rng.choice(["inventory", "inventory", "inventory", "capital"])
        facts = world.draw_facts(rng, task, rng.choice([2, 2, 3, 4]), names=names)
        order = list(range(len(facts)))
        direction = rng.choice([0, 0, 1, None])
        document = world.state_facts(rng, task, facts, order, direction)
        questions = world.ask_facts(rng, task, facts, 9, direction, brief=True)
        asked = [list(question.words) for question in questions]
        answers = [question.solve(frozenset()) for question in questions]
        plain = rng.random() < 0.2
        turns = self._turns(document, asked, answers, plain)
        return self._plain(turns) if plain else self._chat(turns)

    # --- how it is written ---

    def _chat(self, turns: Sequence[tuple[str, str]], weight: float = 1.0) -> Row:
        special = self._tokenizer.special
        row = Row([], [])
        if self._rng.random() < 0.08:
            self._add(row, self._rng.choice(SYSTEM), CONTEXT_WEIGHT, start="<|system|>")
            self._mark(row, special["<|end|>"], 0.0)
        for text, answer in turns:
            self._add(row, text, CONTEXT_WEIGHT, start="<|user|>")
            self._mark(row, special["<|end|>"], 0.0)
            self._add(row, answer, weight, start="<|assistant|>")
            self._mark(row, special["<|end|>"], weight)
        return row

    def _plain(self, turns: Sequence[tuple[str, str]]) -> Row:
        row = Row([], [])
        for text, answer in turns:
            self._add(row, text, CONTEXT_WEIGHT)
            self._add(row, answer, 1.0)
            self._mark(row, self._tokenizer.special["<|end|>"], 1.0)
        return row

    def _add(self, row: Row, text: str, weight: float, start: str | None = None) -> None:
        if start is not None:
            self._mark(row, self._tokenizer.special[start], 0.0)
        ids = self._tokenizer.encode(text)
        row.ids.extend(ids)
        row.weights.extend([weight] * len(ids))

    def _mark(self, row: Row, token: int, weight: float) -> None:
        row.ids.append(token)
        row.weights.append(weight)
