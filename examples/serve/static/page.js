// SPDX-License-Identifier: Apache-2.0
// Asks, and colours the words as scores arrive. All texts go in as text, never as markup.

const $ = (id) => document.getElementById(id);
const FAINT = 0.05; // below this share of the strongest score a unit is not marked
const LEAST = 0.1; // the full colour: while little is known, the strongest score may be noise
const TOP = 10;

let running = null; // the AbortController of the question that is being answered
let words = []; // one span per unit
let texts = [];
let scores = [];

// --- the stream ---------------------------------------------------------------------------------

// EventSource only sends GET, and a prompt may be longer than a URL: so the stream is read here.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = {};
      for (const line of block.split("\n")) {
        const at = line.indexOf(": ");
        if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
      }
      if (fields.event) yield [fields.event, JSON.parse(fields.data)];
    }
  }
}

async function ask() {
  running?.abort();
  const mine = (running = new AbortController());
  const prompt = $("prompt").value;
  clear();
  busy(true);
  const question = { prompt, units: $("units").value };
  if ($("budget").value) question.budget = Number($("budget").value);
  let ended = false;
  try {
    const answer = await fetch("/attribute", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(question),
      signal: mine.signal,
    });
    if (!answer.ok) {
      show.error(await refusal(answer));
      return;
    }
    for await (const [name, data] of events(answer.body)) {
      if (mine.signal.aborted) return;
      show[name]?.(data, prompt);
      ended = name === "attribution" || name === "error";
    }
    if (!ended) show.error({ message: "The stream ended before the result. Ask again." });
  } catch (error) {
    if (mine.signal.aborted) {
      if (running === mine) show.stopped();
    } else {
      show.error({ message: `The server cannot be reached: ${error.message}` });
    }
  } finally {
    if (running === mine) busy(false);
  }
}

async function refusal(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    // Not the application: something between it and this page.
    return { message: `The server answered ${answer.status} ${answer.statusText}`.trim() + "." };
  }
}

// --- what is shown ------------------------------------------------------------------------------

const show = {
  units({ units }, prompt) {
    const points = Array.from(prompt); // spans count code points, strings count UTF-16 units
    const pieces = [];
    let at = 0;
    for (const [start, end] of units) {
      pieces.push(points.slice(at, start).join(""));
      const word = document.createElement("span");
      word.className = "unit unknown";
      word.textContent = points.slice(start, end).join("");
      word.tabIndex = words.length ? -1 : 0;
      words.push(word);
      texts.push(word.textContent);
      pieces.push(word);
      at = end;
    }
    pieces.push(points.slice(at).join(""));
    $("words").replaceChildren(...pieces);
    $("results").hidden = false;
    scores = units.map(() => null);
  },
  output({ text }) {
    $("output").textContent = text;
  },
  scores(data) {
    paint(data.scores, "so far");
    if (!data.total) {
      $("status").textContent = "asking for the output";
      return;
    }
    $("bar").max = data.total;
    $("bar").value = data.done;
    $("status").textContent = `${data.done} of ${data.total} measured, ${calls(data)}`;
  },
  attribution(data) {
    paint(data.scores, `of ${data.metric}`);
    show.output(data.output);
    $("bar").value = $("bar").max;
    $("status").textContent = `done: ${data.method}, ${data.metric}, ${calls(data)}`;
    $("warnings").textContent = data.warnings.join("\n");
    document.body.dataset.state = "done";
  },
  stopped() {
    const done = $("status").textContent;
    $("status").textContent = words.length ? `stopped: ${done}` : "stopped";
    document.body.dataset.state = "stopped";
  },
  error({ message }) {
    $("error").textContent = message;
    $("status").textContent = "failed";
    document.body.dataset.state = "failed";
  },
};

function calls({ calls, cache_hits }) {
  return `${calls} calls` + (cache_hits ? `, ${cache_hits} answers known` : "");
}

function paint(next, which) {
  scores = next;
  const strongest = Math.max(0, ...scores.map((score) => Math.abs(score ?? 0)));
  const largest = Math.max(LEAST, strongest);
  $("scale").textContent = scores.every((score) => score === null)
    ? ""
    : `Full colour is ${largest.toFixed(2)}` +
      (strongest < LEAST ? `; all scores ${which} are weaker. ` : `, the strongest score ${which}. `) +
      `What is below ${100 * FAINT} % of that is not coloured.`;
  words.forEach((word, i) => {
    const share = (scores[i] ?? 0) / largest;
    const kind = share > 0 ? "for" : "against";
    word.className = `unit ${scores[i] === null ? "unknown" : Math.abs(share) < FAINT ? "" : kind}`;
    word.style.setProperty("--share", Math.abs(share).toFixed(3));
    word.title = said(i);
  });
  rank();
  if (words.includes(document.activeElement)) detail(words.indexOf(document.activeElement));
}

function rank() {
  const order = scores
    .map((score, i) => [score, i])
    .filter(([score]) => score !== null && Number(score.toFixed(2)))
    .sort(([a], [b]) => Math.abs(b) - Math.abs(a))
    .slice(0, TOP);
  $("top").replaceChildren(
    ...order.map(([score, i]) => {
      const row = document.createElement("tr");
      for (const text of [named(i), signed(score)]) {
        row.appendChild(document.createElement("td")).textContent = text;
      }
      return row;
    }),
  );
}

function named(i) {
  const alike = texts.flatMap((text, at) => (text === texts[i] ? [at] : []));
  return texts[i] + (alike.length > 1 ? ` (${alike.indexOf(i) + 1} of ${alike.length})` : "");
}

function signed(score) {
  const text = score.toFixed(2);
  return score > 0 && Number(text) ? `+${text}` : text.replace(/^-(0\.00)$/, "$1");
}

function said(i) {
  if (scores[i] === null) return "not measured yet";
  const what = scores[i] > 0 ? "supports the output" : "works against the output";
  return Number(scores[i].toFixed(2)) ? `${signed(scores[i])}: ${what}` : "0.00: no effect";
}

function detail(i) {
  $("detail").textContent = `${named(i).trim()}  ${said(i)}`;
}

function clear() {
  words = [];
  texts = [];
  scores = [];
  delete document.body.dataset.state;
  for (const id of ["words", "top"]) $(id).replaceChildren();
  for (const id of ["output", "detail", "scale", "error", "warnings", "status"]) {
    $(id).textContent = "";
  }
  $("results").hidden = true;
  $("bar").value = 0;
}

function busy(on) {
  $("stop").disabled = !on;
  document.body.toggleAttribute("data-busy", on);
}

// --- keys and buttons ---------------------------------------------------------------------------

$("question").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === $("prompt")) {
    $("question").requestSubmit();
  }
});
$("words").addEventListener("focusin", (event) => detail(words.indexOf(event.target)));
$("words").addEventListener("keydown", (event) => {
  const at = words.indexOf(event.target);
  const last = words.length - 1;
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
  if (at < 0 || next === undefined) return;
  event.preventDefault();
  words[at].tabIndex = -1;
  const word = words[Math.min(last, Math.max(0, next))];
  word.tabIndex = 0;
  word.focus();
});
